"""``ENGINE = "tools.conformance_engine.postgresql"``."""
