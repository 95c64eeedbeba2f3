"""``ENGINE = "tests.support.rows_site.careless.mysql"``."""
