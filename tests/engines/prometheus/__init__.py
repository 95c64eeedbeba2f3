"""``ENGINE = "tests.engines.prometheus"``."""
