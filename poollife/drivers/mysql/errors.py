"""Errors of MySQL and MariaDB that concern a session or its server.

All other errors concern one statement: its session goes on.
"""

from __future__ import annotations

from typing import NamedTuple

from poollife.drivers.verdicts import OVER, Verdict


class Meaning(NamedTuple):
    """An entry of the table."""

    #: The server's name of the error, without its ``ER_`` or ``CR_``.
    name: str
    verdict: Verdict
    #: Texts: the message has to have one of them, if the number has other meanings as well.
    texts: tuple[str, ...] = ()


#: Meanings by error number. Sources: "MariaDB Error Code Reference" and "MySQL Error Message Reference". A
#: comment that says more than these pages names its source.
MEANINGS: dict[int, Meaning] = {
    # max_connections.
    1040: Meaning("CON_COUNT_ERROR", Verdict.FULL),
    # The server could not find the name of the client's address: its resolver may be back at the next try.
    1042: Meaning("BAD_HOST_ERROR", Verdict.CUT_OFF),
    # Balancers' health checks and servers that stop leave half a handshake.
    1043: Meaning("HANDSHAKE_ERROR", Verdict.CUT_OFF),
    1044: Meaning("DBACCESS_DENIED_ERROR", Verdict.REFUSED),
    1045: Meaning("ACCESS_DENIED_ERROR", Verdict.REFUSED),
    # A Galera node outside of the primary component, or with wsrep_reject_queries, gives this answer to all
    # statements but SET and SHOW (Codership: "Node Failure & Recovery"; sql_parse.cc). Otherwise this is an
    # unknown command.
    1047: Meaning("UNKNOWN_COM_ERROR", OVER, ("WSREP",)),
    1053: Meaning("SERVER_SHUTDOWN", OVER),
    # 1077 to 1080: messages of a server that stops. Proxies and old servers send them to clients, too.
    1077: Meaning("NORMAL_SHUTDOWN", OVER),
    1078: Meaning("GOT_SIGNAL", OVER),
    1079: Meaning("SHUTDOWN_COMPLETE", OVER),
    1080: Meaning("FORCING_CLOSE", OVER),
    # The server does not listen to this machine until FLUSH HOSTS; another one behind the address may.
    1129: Meaning("HOST_IS_BLOCKED", Verdict.CUT_OFF),
    1130: Meaning("HOST_NOT_PRIVILEGED", Verdict.REFUSED),
    # 1152 to 1161 and 1184: SQLSTATE 08S01, the server's side of a broken connection. After most of them the
    # server closes the connection. After 1156 and 1157 the two sides no longer agree where a packet begins.
    1152: Meaning("ABORTING_CONNECTION", OVER),
    1153: Meaning("NET_PACKET_TOO_LARGE", Verdict.LOST),
    1154: Meaning("NET_READ_ERROR_FROM_PIPE", OVER),
    1155: Meaning("NET_FCNTL_ERROR", OVER),
    1156: Meaning("NET_PACKETS_OUT_OF_ORDER", OVER),
    1157: Meaning("NET_UNCOMPRESS_ERROR", OVER),
    1158: Meaning("NET_READ_ERROR", OVER),
    1159: Meaning("NET_READ_INTERRUPTED", OVER),
    1160: Meaning("NET_ERROR_ON_WRITE", OVER),
    1161: Meaning("NET_WRITE_INTERRUPTED", OVER),
    # A COMMIT that failed at the server, as with Galera where a node leaves the primary component meanwhile,
    # or with a full disk. It is so rare that the other sessions may be pinged each time.
    1180: Meaning("ERROR_DURING_COMMIT", Verdict.LOST),
    1184: Meaning("NEW_ABORTING_CONNECTION", OVER),
    1203: Meaning("TOO_MANY_USER_CONNECTIONS", Verdict.FULL),
    # A resource limit of the user's, such as MAX_USER_CONNECTIONS.
    1226: Meaning("USER_LIMIT_REACHED", Verdict.FULL),
    1251: Meaning("NOT_SUPPORTED_AUTH_MODE", Verdict.REFUSED),
    # The message names the option, which may be another one, such as --secure-file-priv.
    1290: Meaning("OPTION_PREVENTS_STATEMENT", Verdict.READ_ONLY, ("read-only", "read_only")),
    # The server does not have the account's authentication plugin.
    1524: Meaning("PLUGIN_IS_NOT_LOADED", Verdict.REFUSED),
    1698: Meaning("ACCESS_DENIED_NO_PASSWORD_ERROR", Verdict.REFUSED),
    # The transaction is read-only: by the server's default, or because the application has asked for it.
    1792: Meaning("CANT_EXECUTE_IN_READ_ONLY_TRANSACTION", Verdict.READ_ONLY),
    # The password has expired. The login works, and every statement fails.
    1820: Meaning("MUST_CHANGE_PASSWORD", Verdict.REFUSED),
    1835: Meaning("MALFORMED_PACKET", Verdict.LOST),
    1836: Meaning("READ_ONLY_MODE", Verdict.READ_ONLY),
    1862: Meaning("MUST_CHANGE_PASSWORD_LOGIN", Verdict.REFUSED),
    1873: Meaning("ACCESS_DENIED_CHANGE_USER_ERROR", Verdict.REFUSED),
    # A server that was started with innodb_read_only, as Aurora's readers are.
    1874: Meaning("INNODB_READ_ONLY", Verdict.READ_ONLY),
    # MariaDB: KILL.
    1927: Meaning("CONNECTION_KILLED", OVER),
    # Errors of the client library. In a session each of 2000 to 2999 means LOST: see verdict_on().
    2002: Meaning("CONNECTION_ERROR", Verdict.LOST | Verdict.UNREACHABLE),
    2003: Meaning("CONN_HOST_ERROR", Verdict.LOST | Verdict.UNREACHABLE),
    2004: Meaning("IPSOCK_ERROR", Verdict.LOST | Verdict.UNREACHABLE),
    2005: Meaning("UNKNOWN_HOST", Verdict.LOST | Verdict.UNREACHABLE),
    2006: Meaning("SERVER_GONE_ERROR", OVER),
    2012: Meaning("SERVER_HANDSHAKE_ERR", OVER),
    2013: Meaning("SERVER_LOST", OVER),
    # Over TLS libmariadb reports a server that went away by this number, like all other failures of TLS.
    2026: Meaning("SSL_CONNECTION_ERROR", OVER),
    2055: Meaning("SERVER_LOST_EXTENDED", OVER),
    # From here on MySQL and MariaDB have different numbers, but MariaDB has kept MySQL's 3032.
    # offline_mode: sessions end with their next statement. Only an administrator can open new ones.
    3032: Meaning("SERVER_OFFLINE_MODE", OVER),
    3118: Meaning("ACCOUNT_HAS_BEEN_LOCKED", Verdict.REFUSED),
    3168: Meaning("SERVER_ISNT_AVAILABLE", OVER),
    # MySQL: KILL.
    3169: Meaning("SESSION_WAS_KILLED", OVER),
    # FAILED_LOGIN_ATTEMPTS has locked the account for a while.
    3955: Meaning("USER_ACCESS_DENIED_FOR_USER_ACCOUNT_BLOCKED_BY_PASSWORD_LOCK", Verdict.REFUSED),
    # wait_timeout has ended the session.
    4031: Meaning("CLIENT_INTERACTION_TIMEOUT", Verdict.LOST),
    # MariaDB: max_password_errors has blocked the user until FLUSH PRIVILEGES.
    4150: Meaning("USER_IS_BLOCKED", Verdict.REFUSED),
    # MariaDB: ACCOUNT LOCK.
    4151: Meaning("ACCOUNT_HAS_BEEN_LOCKED", Verdict.REFUSED),
}
#: The text of further numbers of MySQL 9.0, which add the time and the reason of the offline mode ("Offline
#: mode error improvement", MySQL's blog).
OFFLINE = "server is currently in offline mode"
#: Numbers of the client library's errors, after which the protocol may be out of step.
CLIENTS = range(2000, 3000)


def verdict_on(error: BaseException) -> Verdict:
    """Return the meaning of an error of a MySQL driver for its session and its server.

    An error without a number comes from the driver itself, in the middle of the protocol, and counts as LOST.

    :param error: the exception; its arguments are the number and the text.
    """
    code, message = (*error.args, None, "")[:2]
    if not isinstance(code, int):
        return Verdict.LOST
    text = str(message)
    if meaning := MEANINGS.get(code):
        told = not meaning.texts or any(each in text for each in meaning.texts)
        return meaning.verdict if told else Verdict.NONE
    if code in CLIENTS:
        return Verdict.LOST
    return OVER if OFFLINE in text else Verdict.NONE
