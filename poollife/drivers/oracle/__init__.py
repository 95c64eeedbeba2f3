"""The driver of Oracle: python-oracledb in thin mode."""
