"""Statements of MySQL and MariaDB: which of them leave state in their session, as their text shows.

Only statements that are known to leave nothing keep a session clean. A statement that is not understood
counts as one that leaves state, which costs a reset. The opposite mistake would hand one borrower's state to
the next.
"""

from __future__ import annotations

import re

from poollife.drivers.effects import LEAVES, UNKNOWN, memories
from poollife.drivers.mysql.effects import code_of, effects_of, text_of

#: Native functions that leave nothing, so no setters (GET_LOCK, SETVAL). Called without white space and
#: without a database's name, none of them can be a stored function of that name. Every MariaDB that Django
#: supports has all of them: where one is missing, there may be a stored function with its name.
FUNCTIONS = """
    ABS ACOS ADDDATE ADDTIME AES_DECRYPT AES_ENCRYPT ASCII ASIN ATAN ATAN2 AVG BIN BIT_AND BIT_COUNT
    BIT_LENGTH BIT_OR BIT_XOR CAST CEIL CEILING CHAR CHARACTER_LENGTH CHARSET CHAR_LENGTH COALESCE
    COERCIBILITY COLLATION COMPRESS CONCAT CONCAT_WS CONNECTION_ID CONV CONVERT CONVERT_TZ COS COT COUNT CRC32
    CUME_DIST CURDATE CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP CURRENT_USER CURTIME DATABASE DATE DATEDIFF
    DATE_ADD DATE_FORMAT DATE_SUB DAY DAYNAME DAYOFMONTH DAYOFWEEK DAYOFYEAR DEFAULT DEGREES DENSE_RANK ELT
    EXP EXPORT_SET EXTRACT EXTRACTVALUE FIELD FIND_IN_SET FIRST_VALUE FLOOR FORMAT FOUND_ROWS FROM_BASE64
    FROM_DAYS FROM_UNIXTIME GREATEST GROUP_CONCAT HEX HOUR IF IFNULL INET6_ATON INET6_NTOA INET_ATON INET_NTOA
    INSERT INSTR INTERVAL ISNULL IS_FREE_LOCK IS_IPV4 IS_IPV4_COMPAT IS_IPV4_MAPPED IS_IPV6 IS_USED_LOCK
    JSON_ARRAY JSON_ARRAYAGG JSON_ARRAY_APPEND JSON_ARRAY_INSERT JSON_CONTAINS JSON_CONTAINS_PATH JSON_DEPTH
    JSON_EXTRACT JSON_INSERT JSON_KEYS JSON_LENGTH JSON_MERGE_PATCH JSON_MERGE_PRESERVE JSON_OBJECT
    JSON_OBJECTAGG JSON_QUOTE JSON_REMOVE JSON_REPLACE JSON_SEARCH JSON_SET JSON_TYPE JSON_UNQUOTE JSON_VALID
    JSON_VALUE LAG LAST_DAY LAST_VALUE LCASE LEAD LEAST LEFT LENGTH LN LOCALTIME LOCALTIMESTAMP LOCATE LOG
    LOG10 LOG2 LOWER LPAD LTRIM MAKEDATE MAKETIME MAKE_SET MAX MBRCONTAINS MBRINTERSECTS MBROVERLAPS MBRWITHIN
    MD5 MICROSECOND MID MIN MINUTE MOD MONTH MONTHNAME NOW NTH_VALUE NTILE NULLIF OCT OCTET_LENGTH ORD
    PERCENT_RANK PERIOD_ADD PERIOD_DIFF PI POSITION POW POWER QUARTER QUOTE RADIANS RAND RANK REGEXP_INSTR
    REGEXP_REPLACE REGEXP_SUBSTR REPEAT REPLACE REVERSE RIGHT ROUND ROW ROW_COUNT ROW_NUMBER RPAD RTRIM SCHEMA
    SECOND SEC_TO_TIME SESSION_USER SHA SHA1 SHA2 SIGN SIN SLEEP SOUNDEX SPACE SQRT STD STDDEV STDDEV_POP
    STDDEV_SAMP STRCMP STR_TO_DATE ST_AREA ST_ASBINARY ST_ASGEOJSON ST_ASTEXT ST_ASWKB ST_ASWKT ST_BUFFER
    ST_CENTROID ST_CONTAINS ST_CROSSES ST_DIFFERENCE ST_DIMENSION ST_DISJOINT ST_DISTANCE ST_ENVELOPE
    ST_EQUALS ST_GEOMETRYTYPE ST_GEOMFROMTEXT ST_GEOMFROMWKB ST_INTERSECTION ST_INTERSECTS ST_ISCLOSED
    ST_ISEMPTY ST_LENGTH ST_NUMPOINTS ST_OVERLAPS ST_SRID ST_SYMDIFFERENCE ST_TOUCHES ST_UNION ST_WITHIN ST_X
    ST_Y SUBDATE SUBSTR SUBSTRING SUBSTRING_INDEX SUBTIME SUM SYSDATE SYSTEM_USER TAN TIME TIMEDIFF TIMESTAMP
    TIMESTAMPADD TIMESTAMPDIFF TIME_FORMAT TIME_TO_SEC TO_BASE64 TO_DAYS TO_SECONDS TRIM TRUNCATE UCASE
    UNCOMPRESS UNCOMPRESSED_LENGTH UNHEX UNIX_TIMESTAMP UPDATEXML UPPER USER UTC_DATE UTC_TIME UTC_TIMESTAMP
    UUID UUID_SHORT VALUE VARIANCE VAR_POP VAR_SAMP VERSION WEEK WEEKDAY WEEKOFYEAR WEIGHT_STRING YEAR
    YEARWEEK
"""
#: Reserved words: before a parenthesis, or before a parameter that may become one, they can't be a function.
KEYWORDS = """
    ALL AND AS BETWEEN BINARY BY CASE DISTINCT DIV ELSE EXCEPT EXISTS FROM HAVING IN INDEX INTERSECT INTERVAL
    IS JOIN KEY LIKE LIMIT MATCH MOD NOT ON OR OVER PARTITION REGEXP RLIKE SELECT SEPARATOR SET THEN UNION
    USING VALUES WHEN WHERE XOR _BINARY
"""
#: Types behind AS in CAST().
TYPES = "BINARY CHAR DATETIME DECIMAL DOUBLE NCHAR TIME VARCHAR"
#: SQL_CALC_FOUND_ROWS changes the answer of the next FOUND_ROWS(), NEXT VALUE FOR that of LASTVAL().
SETTERS = "SQL_CALC_FOUND_ROWS NEXT NEXTVAL"
STATEMENTS = (
    "(?:ANALYZE\\s+(?:FORMAT\\s*=\\s*\\w+\\s+)?)?(?:SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)"
    "|SHOW|EXPLAIN|SAVEPOINT|RELEASE\\s+SAVEPOINT|ROLLBACK\\s+TO"
)


def _any_of(names: str) -> str:
    return "|".join(sorted(names.split()))


# Neither the server's sql_mode (ANSI_QUOTES, NO_BACKSLASH_ESCAPES) nor a parameter can move the end of one of
# these: no backslash may stand before a quote, and no parameter may stand inside. Backtracking can't move it
# either: a text that a lookahead refuses is never read again as something longer. (No possessive groups:
# Python 3.11.0 had a bug.)
# A line comment has to be one in every sql_mode and character set: "--" with white space behind it, or "#".
# It ends with a line feed, which is no part of another character in any character set of a client, or with a
# NUL.
_COMMENT = r"(?:/\*(?!M?!|\+)(?:[^*%]++|\*(?!/))*\*/|(?:--(?=[ \t\n]|\Z)|\#)[^\n%\0]*+(?:\n|\Z))"
_QUOTED = r"'(?:[^'\\%\0]++|''|\\[^'\"%])*'(?!')"
_DOUBLE_QUOTED = r'"(?:[^"\\%\0]++|""|\\[^\'"%])*"(?!")'
_BACKQUOTED = r"`(?:[^`%\0]++|``)*`(?!`)"
#: Oracle's syntax for sequences allows its word in quotes, too.
_NO_SETTER = r"(?![`\"]NEXTVAL[`\"])"
_NAME = rf"(?:[\w$]+|{_BACKQUOTED}|{_DOUBLE_QUOTED})"
_APART = rf"\s*(?:{_COMMENT}\s*)*"
#: The test for a name that is not a reserved word: before one of these characters it would call a function.
_NO_CALL = rf"(?!{_APART}[(%])"

_HEAD = re.compile(rf"[\s(]*(?:{_COMMENT}[\s(]*)*(?:{STATEMENTS})\b".encode())
_TOKEN = re.compile(
    "|".join(
        [
            r"[\s,()=<>!+*|&^~]++",
            r"%(?:S(?:,\s*%S)*|\(\w+\)S)(?![\w$.(%'\"`])",
            rf"(?<!\.)AS\s+(?:{_any_of(TYPES)})(?=\()",
            # A full-text search, and a page of a list: the words are not reserved, but no call can stand
            # here.
            r"(?<=\) )AGAINST(?=\s*\()",
            r"(?<!\.)LIMIT\s+(?:%S|\d+)\s+OFFSET(?=\s+%S)",
            rf"(?<!\.)INTO\s+(?:{_NAME}\.)?{_NAME}(?=\s*\()",
            rf"(?!(?:{_any_of(SETTERS)})\b)[\w$]++{_NO_CALL}",
            rf"{_NO_SETTER}{_BACKQUOTED}{_NO_CALL}",
            r"\.(?=[\w$`\"*])",
            _QUOTED,
            rf"{_NO_SETTER}{_DOUBLE_QUOTED}{_NO_CALL}",
            rf"(?<!\.)(?:{_any_of(KEYWORDS)})(?=\s*\(|\s+%)",
            rf"(?<!\.)(?:{_any_of(FUNCTIONS)})\(",
            r"(?<!\.)LAST_INSERT_ID\(\s*\)",
            rf"@@(?:(?:GLOBAL|LOCAL|SESSION)\.)?\w++(?!{_APART}[(%.])",
            r"-(?!-)",
            r"/(?!\*)",
            _COMMENT,
            r";\s*\Z",
            # All the rest at once: a text with many opening quotes or comments that never end would otherwise
            # take too long.
            r"((?s:.+))",
        ]
    ).encode()
)


def read(sql: object, is_template: bool = False) -> int:
    """Return the effects that a text of MySQL or MariaDB has on its session.

    Statements that begin or end a transaction are not understood; savepoints inside of one are.

    :param sql: the text. As bytes, only ASCII can be known to leave nothing: the session decides where
        another character ends.
    :param is_template: whether the driver puts parameters in place of ``%s`` and ``%(name)s``. Each is
        expected to become one literal, or several in parentheses.
    """
    text = text_of(sql, is_template)
    if text is None:
        return UNKNOWN
    understood = isinstance(sql, str) or text.isascii()
    # findall() returns the only group of the expression, which is empty for each known token.
    clean = understood and _HEAD.match(text) and not any(_TOKEN.findall(text))
    return effects_of(code_of(text)) | (0 if clean else LEAVES)


#: The effects of texts, by whether the driver puts parameters into the text.
EFFECTS = memories(read)
