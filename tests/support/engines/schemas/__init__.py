"""``ENGINE = "tests.support.engines.schemas"``."""
