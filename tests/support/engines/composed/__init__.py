"""``ENGINE = "tests.support.engines.composed"``."""
