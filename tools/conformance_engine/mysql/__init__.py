"""``ENGINE = "tools.conformance_engine.mysql"``."""
