"""``ENGINE = "poollife.backends.mysql_pymysql"``: MySQL and MariaDB through PyMySQL."""

import pymysql

# Django's backend takes a version and some constants from the module MySQLdb. mysqlclient may stay there.
# Without it, PyMySQL takes that name by its own function for this purpose.
try:
    import MySQLdb  # noqa: F401
except ImportError:
    pymysql.install_as_MySQLdb()
