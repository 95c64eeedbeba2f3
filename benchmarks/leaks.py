"""Kinds of session state that one borrower may leave to the next, by kind of server.

The SQL is such that any driver sends it.
"""

from __future__ import annotations

from typing import NamedTuple

TABLES = """
CREATE TABLE {at}log (n INT)
CREATE TABLE {at}other (n INT)
INSERT INTO {at}log VALUES (1), (2), (3)
CREATE SEQUENCE {at}numbers
"""
#: The statements of the administrator, as ``Dialect.execute()`` takes them.
SET_UP = {
    "mysql": TABLES
    + """\
CREATE PROCEDURE {at}sets() SET @left = 'procedure'
CREATE DATABASE IF NOT EXISTS {name}_tenant
CREATE OR REPLACE ROLE clerk
GRANT clerk TO {user}@'%'
""",
    "postgresql": TABLES
    + """\
CREATE PROCEDURE sets() LANGUAGE SQL AS $$ SELECT set_config('my.kept', 'procedure', false) $$
CREATE TABLE first_of_seed (n DOUBLE PRECISION)
SELECT setseed(0.5); INSERT INTO first_of_seed SELECT random()
SELECT pg_replication_origin_create('left')
CREATE ROLE clerk
GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk
""",
}


class Kind(NamedTuple):
    """A kind of session state: a change by one borrower, and a look by the next, which shows the change.

    Both are statements, in which ``{name}`` is the database, or keys of ``DEEDS`` in ``benchmarks.worker``.
    """

    change: str
    look: str


#: The site's own setting; it is empty in a session that was reset, and null in a new one.
MY_SETTING = "SELECT COALESCE(current_setting('my.kept', true), '')"

MYSQL = {
    "@variable": Kind("SET @left = 1", "SELECT @left"),
    "@variable in SELECT": Kind("SELECT @left := 1", "SELECT @left"),
    "@variable from CALL": Kind("CALL sets()", "SELECT @left"),
    "sql_mode": Kind("SET sql_mode = 'ANSI_QUOTES'", "SELECT @@sql_mode"),
    "time_zone": Kind("SET time_zone = '+05:00'", "SELECT @@time_zone"),
    "isolation level": Kind("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SELECT @@tx_isolation"),
    "READ ONLY": Kind("SET SESSION TRANSACTION READ ONLY", "SELECT @@tx_read_only"),
    "autocommit": Kind("SET autocommit = 0", "SELECT @@autocommit"),
    "open transaction": Kind("BEGIN", "SELECT @@in_transaction"),
    "XA transaction": Kind("XA START 'left'", "SELECT @@in_transaction"),
    "foreign_key_checks": Kind("SET foreign_key_checks = 0", "SELECT @@foreign_key_checks"),
    "max_statement_time": Kind("SET max_statement_time = 60", "SELECT @@max_statement_time"),
    "character_set_results": Kind("SET character_set_results = latin1", "SELECT @@character_set_results"),
    "SET NAMES": Kind("SET NAMES latin1", "SELECT @@character_set_client"),
    "timestamp": Kind("SET timestamp = 1", "SELECT NOW() > '1980-01-01'"),
    "GET_LOCK": Kind("SELECT GET_LOCK('left', 0)", "SELECT IS_FREE_LOCK('left')"),
    "LOCK TABLES": Kind("LOCK TABLES log READ", "SELECT COUNT(*) FROM other"),
    "temporary table": Kind("CREATE TEMPORARY TABLE left_here (n INT)", "SELECT COUNT(*) FROM left_here"),
    "temporary over real table": Kind("CREATE TEMPORARY TABLE log (n INT)", "SELECT COUNT(*) FROM log"),
    "USE of another tenant": Kind("USE {name}_tenant", "SELECT DATABASE()"),
    "PREPARE": Kind("PREPARE it FROM 'SELECT 666'", "EXECUTE it"),
    "HANDLER": Kind("HANDLER log OPEN", "HANDLER log READ FIRST"),
    "SET ROLE": Kind("SET ROLE clerk", "SELECT CURRENT_ROLE()"),
    "LAST_INSERT_ID(expr)": Kind("SELECT LAST_INSERT_ID(77)", "SELECT LAST_INSERT_ID()"),
    "FOUND_ROWS()": Kind("SELECT SQL_CALC_FOUND_ROWS n FROM log LIMIT 1", "SELECT FOUND_ROWS() > 1"),
    "LASTVAL(sequence)": Kind("SELECT NEXT VALUE FOR numbers", "SELECT LASTVAL(numbers)"),
    "unread cursor, kept": Kind("read_half", "SELECT 1"),
    "unread cursor, dropped": Kind("read_half_and_drop", "SELECT 1"),
    "stale cursor commits": Kind("keep_cursor", "commit_by_kept_cursor"),
}
POSTGRESQL = {
    "SET of a setting": Kind("SET statement_timeout = 60000", "SHOW statement_timeout"),
    "SET search_path": Kind("SET search_path = pg_catalog", "SHOW search_path"),
    "SET of the site's own": Kind("SET my.kept = '1'", MY_SETTING),
    "set_config() in SELECT": Kind("SELECT set_config('my.kept', '1', false)", MY_SETTING),
    "set_config() in DO": Kind("DO $$ BEGIN PERFORM set_config('my.kept', '1', false); END $$", MY_SETTING),
    "set_config() in CALL": Kind("CALL sets()", MY_SETTING),
    "UPDATE pg_settings": Kind(
        "UPDATE pg_settings SET setting = '60000' WHERE name = 'lock_timeout'", "SHOW lock_timeout"
    ),
    "TimeZone": Kind("SET TIME ZONE 'Asia/Tokyo'", "SHOW TimeZone"),
    "DateStyle": Kind("SET DateStyle = 'German'", "SHOW DateStyle"),
    "SET NAMES": Kind("SET NAMES 'LATIN1'", "SHOW client_encoding"),
    "application_name": Kind("SET application_name = 'left'", "SHOW application_name"),
    "isolation level": Kind(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SHOW transaction_isolation",
    ),
    "READ ONLY": Kind("SET default_transaction_read_only = on", "SHOW transaction_read_only"),
    "SET ROLE": Kind("SET ROLE clerk", "SELECT current_user"),
    "SET SESSION AUTHORIZATION": Kind("SET SESSION AUTHORIZATION clerk", "SELECT session_user"),
    "open transaction": Kind("BEGIN", "SELECT now() = statement_timestamp()"),
    "failed transaction": Kind("BEGIN; SELECT 1 / 0", "SELECT 1"),
    "advisory lock": Kind(
        "SELECT pg_advisory_lock(77)", "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory'"
    ),
    "temporary table": Kind("CREATE TEMP TABLE left_here (n INT)", "SELECT to_regclass('left_here')"),
    "temporary over real table": Kind("CREATE TEMP TABLE log (n INT)", "SELECT COUNT(*) FROM log"),
    "SELECT INTO TEMP": Kind("SELECT 1 AS n INTO TEMP left_here", "SELECT to_regclass('left_here')"),
    "temporary view": Kind("CREATE TEMP VIEW left_here AS SELECT 1", "SELECT to_regclass('left_here')"),
    "temporary function": Kind(
        "CREATE FUNCTION pg_temp.left_here() RETURNS INT LANGUAGE SQL AS 'SELECT 1'",
        "SELECT COUNT(*) FROM pg_proc WHERE proname = 'left_here'",
    ),
    "PREPARE": Kind("PREPARE it AS SELECT 666", "EXECUTE it"),
    "cursor WITH HOLD": Kind("DECLARE it CURSOR WITH HOLD FOR SELECT 1", "SELECT COUNT(*) FROM pg_cursors"),
    "LISTEN": Kind("LISTEN it", "SELECT COUNT(*) FROM pg_listening_channels()"),
    "LOAD": Kind(
        "LOAD 'auto_explain'", "SELECT COALESCE(current_setting('auto_explain.log_level', true), '')"
    ),
    "replication origin": Kind(
        "SELECT pg_replication_origin_session_setup('left')",
        "SELECT pg_replication_origin_session_is_setup()",
    ),
    "setseed()": Kind("SELECT setseed(0.5)", "SELECT random() = n FROM first_of_seed"),
    "lastval()": Kind("SELECT nextval('numbers')", "SELECT lastval()"),
    "currval()": Kind("SELECT nextval('numbers')", "SELECT currval('numbers')"),
    "row factory of the driver": Kind("set_row_factory", "SELECT 1"),
    "unread stream, kept": Kind("read_half", "SELECT 1"),
    "unread stream, dropped": Kind("read_half_and_drop", "SELECT 1"),
    "stale cursor commits": Kind("keep_cursor", "commit_by_kept_cursor"),
}
KINDS = {"mysql": MYSQL, "postgresql": POSTGRESQL}
#: The kinds of which the same borrower sees nothing: they harm only the next borrower.
HARMS_OTHERS_ONLY = {"unread cursor, dropped", "unread stream, dropped"}
