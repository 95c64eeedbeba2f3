"""``ENGINE = "tests.engines.composed"``."""
