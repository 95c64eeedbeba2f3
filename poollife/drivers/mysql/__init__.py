"""MySQL and MariaDB, by mysqlclient and by PyMySQL."""
