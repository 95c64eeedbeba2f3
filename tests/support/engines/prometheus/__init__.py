"""``ENGINE = "tests.support.engines.prometheus"``."""
