"""``ENGINE = "tests.support.engines.prometheus_postgresql"``."""
