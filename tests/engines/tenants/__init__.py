"""``ENGINE = "tests.engines.tenants"``."""
