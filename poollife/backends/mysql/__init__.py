"""``ENGINE = "poollife.backends.mysql"``: MySQL and MariaDB through mysqlclient."""
