"""``ENGINE = "poollife.backends.mysql_pymysql"``: MySQL and MariaDB through PyMySQL."""

import pymysql

# Django's backend takes a version and some constants from whatever is called MySQLdb. If that is mysqlclient
# it may stay; if it is nothing, PyMySQL takes the name, in the way that it is made for.
try:
    import MySQLdb  # noqa: F401
except ImportError:
    pymysql.install_as_MySQLdb()
