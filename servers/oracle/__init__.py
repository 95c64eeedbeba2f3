"""A stand-in for an Oracle server: it speaks the protocol of python-oracledb in thin mode, and is not Oracle."""
