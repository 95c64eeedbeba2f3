"""``ENGINE = "tests.support.engines.general"``."""
