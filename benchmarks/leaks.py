"""Kinds of session state that one borrower may leave to the next, in SQL that any driver sends."""

from __future__ import annotations

from typing import NamedTuple

#: The statements of the administrator. ``{name}`` is the database, ``{user}`` the borrowers' account.
SET_UP = """
CREATE TABLE {name}.log (n INT) ENGINE=InnoDB
CREATE TABLE {name}.other (n INT) ENGINE=InnoDB
INSERT INTO {name}.log VALUES (1), (2), (3)
CREATE SEQUENCE {name}.numbers
CREATE PROCEDURE {name}.sets() SET @left = 'procedure'
CREATE DATABASE IF NOT EXISTS {name}_tenant
CREATE OR REPLACE ROLE clerk
GRANT clerk TO {user}@'%'
"""


class Kind(NamedTuple):
    """A kind of session state: a change by one borrower, and a look by the next, which shows the change.

    Both are statements, in which ``{name}`` is the database, or keys of ``DEEDS`` in ``benchmarks.worker``.
    """

    change: str
    look: str


KINDS = {
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
#: The kinds of which the same borrower sees nothing: they harm only the next borrower.
HARMS_OTHERS_ONLY = {"unread cursor, dropped"}
