"""Settings that a page leaves out, and the private server in place of the one that it names."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import MySQLdb

SECRET_KEY = "tests"
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = __name__
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
ALLOWED_HOSTS = ["testserver"]
urlpatterns: list[object] = []
#: An entry of stock Django's, for a page that changes it. The others have an entry of their own.
DATABASES: dict[str, dict[str, Any]] = {"default": {"ENGINE": "django.db.backends.mysql", "NAME": "docs"}}

#: USER, PASSWORD, HOST, PORT and, of PostgreSQL, the OPTIONS, of Oracle's stand-in the NAME.
_SERVER: dict[str, Any] = json.loads(os.environ["DOCS_SITE_SERVER"])
_POSTGRESQL: dict[str, Any] = json.loads(os.environ["DOCS_SITE_POSTGRESQL"])
_ORACLE: dict[str, Any] = json.loads(os.environ["DOCS_SITE_ORACLE"])
#: For files.
_FOLDER = Path(os.environ["DOCS_SITE_FOLDER"])


def fill_in(databases: dict[str, dict[str, Any]]) -> None:
    """Lead these entries to databases on the private server, made if need be, or to temporary files."""
    for entry in databases.values():
        if "sqlite3" in entry["ENGINE"]:
            entry["NAME"] = _FOLDER / Path(entry["NAME"]).name
        elif "postg" in entry["ENGINE"]:
            options = {**entry.get("OPTIONS", {}), **_POSTGRESQL["OPTIONS"]}
            entry.update({**_POSTGRESQL, "OPTIONS": options})
            _create_in_postgresql(entry.setdefault("NAME", "docs"))
        elif "oracle" in entry["ENGINE"]:
            entry.update(_ORACLE)
        else:
            if "JDBC_URL" in entry:
                server = f"//{_SERVER['HOST']}:{_SERVER['PORT']}/"
                entry["JDBC_URL"] = re.sub(r"//[\w.:]+/", server, entry["JDBC_URL"])
                entry.setdefault("NAME", "shop")
            entry.update(_SERVER)
            _create(entry.setdefault("NAME", "docs"))


def _create(name: str) -> None:
    connection = MySQLdb.connect(
        host=_SERVER["HOST"], port=int(_SERVER["PORT"]), user=_SERVER["USER"], password=_SERVER["PASSWORD"]
    )
    try:
        connection.query(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4")
    finally:
        connection.close()


def _create_in_postgresql(name: str) -> None:
    import psycopg

    with psycopg.connect(
        host=_POSTGRESQL["HOST"],
        port=_POSTGRESQL["PORT"],
        user=_POSTGRESQL["USER"],
        password=_POSTGRESQL["PASSWORD"],
        dbname="template1",
        autocommit=True,
    ) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))
