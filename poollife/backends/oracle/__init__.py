"""``ENGINE = "poollife.backends.oracle"``: Oracle through python-oracledb in thin mode."""
