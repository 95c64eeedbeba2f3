"""``ENGINE = "tests.engines.general"``."""
