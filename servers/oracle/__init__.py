"""A stand-in for an Oracle server: it speaks the protocol of python-oracledb's thin mode, and is not Oracle."""

from servers.oracle.server import Call, OracleStandIn

__all__ = ["Call", "OracleStandIn"]
