"""Raw SQL on OceanBase through its JDBC driver, pooled. Neither the driver nor a server was ever tried."""

from __future__ import annotations

from poollife.backends.jdbc import base


class DatabaseWrapper(base.DatabaseWrapper):
    """The wrapper that ``ENGINE`` names. Its SQL may be that of both modes of OceanBase."""

    display_name = "OceanBase"
    needed_settings = {}
    default_settings = {
        "JDBC_DRIVER": "com.oceanbase.jdbc.Driver",
        "JDBC_URL": "jdbc:oceanbase://{HOST}:{PORT}/{NAME}",
        "HOST": "localhost",
        "PORT": "2881",
    }
    caveat = (
        "ENGINE 'poollife.backends.jdbc.oceanbase' is experimental: it was never tried on OceanBase, and "
        "runs raw SQL only.",
        "For a tenant in MySQL mode use 'poollife.backends.mysql', which needs no Java. For Django's queries "
        "on a tenant in Oracle mode see docs/java.md. If it works for you, silence this.",
    )
