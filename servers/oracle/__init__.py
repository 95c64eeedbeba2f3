"""A stand-in for an Oracle server, for python-oracledb: it speaks the protocol, and is not Oracle."""
