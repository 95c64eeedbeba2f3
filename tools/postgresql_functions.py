"""Compare the list of PostgreSQL's functions that leave nothing with a running server.

``python -m tools.postgresql_functions "host=/tmp user=postgres"`` asks that server with ``psql``. It ends
with status 1 if a function of the list is missing there, or may leave state. ``--list`` prints the list that
the server would give, for ``poollife/drivers/postgresql/functions.py``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import textwrap

from poollife.drivers.postgresql.functions import FUNCTIONS, HARMLESS

#: Immutable and stable functions that nevertheless run other code: they read a table, which may be a view, or
#: the rows of a cursor.
EXCLUDED = [
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
]
#: New in PostgreSQL 15 (its release notes): where one is missing, a user's function may have its name.
NEW_IN_15 = [
    "has_parameter_privilege",
    "pg_settings_get_flags",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_substr",
]
#: Names that no application calls: parts of the server, of its statistics views and of its upgrade.
INTERNAL = (
    "^(pg_stat_get_|binary_upgrade_|pg_event_trigger_|pg_get_multixact|fmgr_|gin_|gist_|brin|spg_|ri_)"
    "|(send|_cmp|_hash|_hash_extended|hash|hashextended|_combine|typmodin|typmodout|_validator)$|^hash|^bt"
)
#: A name is on the list if each of its functions is immutable or stable, and can be called from SQL. What
#: only implements an operator, a type or an aggregate is left out: no statement calls it by its name.
QUERY = """
SELECT upper(p.proname) FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace
GROUP BY p.proname HAVING bool_and(
    p.provolatile <> 'v' AND p.prokind <> 'p'
    AND NOT p.prorettype::regtype::text = ANY ({support}) AND p.prorettype::regtype::text !~ '_handler$'
    AND NOT EXISTS (SELECT 1 FROM unnest(p.proargtypes) a WHERE a::regtype::text = ANY ({support}))
    AND NOT coalesce(obj_description(p.oid, 'pg_proc') LIKE 'implementation of %', false)
    AND NOT EXISTS (SELECT 1 FROM pg_aggregate a
        WHERE p.oid IN (a.aggtransfn, a.aggfinalfn, a.aggmtransfn, a.aggminvtransfn))
) AND p.proname !~ '{internal}' ORDER BY 1
""".format(support="'{internal,cstring,trigger,event_trigger}'", internal=INTERNAL)


def of_server(conninfo: str, sql: str = QUERY) -> set[str]:
    """Return the first column of the answer to a query.

    :param conninfo: the server, as ``psql`` takes it.
    """
    command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql, conninfo]
    return {*subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()}


def expected(conninfo: str) -> set[str]:
    """Return the functions that leave nothing, by the catalog of a server."""
    return of_server(conninfo) - {name.upper() for name in (*EXCLUDED, *NEW_IN_15)}


def missing(conninfo: str) -> set[str]:
    """Return the names of the list that are no function of the server, or that may leave state there."""
    names = of_server(conninfo, "SELECT upper(proname) FROM pg_proc WHERE pronamespace = 11")
    return ({*FUNCTIONS.split()} - expected(conninfo)) | ({*HARMLESS.split()} - names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("conninfo", help="the server, as psql takes it")
    parser.add_argument("--list", action="store_true", help="print the list that the server would give")
    arguments = parser.parse_args()
    if arguments.list:
        print(textwrap.fill(" ".join(sorted(expected(arguments.conninfo))), 106))
        return 0
    for name in sorted(expected(arguments.conninfo) - {*FUNCTIONS.split()}):
        print("not on the list:", name)
    for name in sorted(dangerous := missing(arguments.conninfo)):
        print("DANGEROUS:", name)
    return 1 if dangerous else 0


if __name__ == "__main__":
    sys.exit(main())
