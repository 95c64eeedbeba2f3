"""``ENGINE = "poollife.backends.mysql_gis"``: GeoDjango on MySQL and MariaDB."""
