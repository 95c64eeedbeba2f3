"""``ENGINE = "tests.support.engines.tenants"``."""
