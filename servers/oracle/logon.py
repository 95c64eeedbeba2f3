"""The logon of Oracle 11g (O5LOGON), from the side of a server: neither side sends the password."""

from __future__ import annotations

import hashlib
import secrets

#: The kind of verifier.
VERIFIER = 0x1B25


def _cipher(key: bytes) -> object:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.CBC(bytes(16)))


def encrypt(key: bytes, text: bytes) -> bytes:
    """Return a text that AES has encrypted; its length is one of whole blocks."""
    encryptor = _cipher(key).encryptor()  # type: ignore[attr-defined]  # imported late
    return bytes(encryptor.update(text) + encryptor.finalize())


def decrypt(key: bytes, text: bytes) -> bytes:
    """Return the text that AES has encrypted."""
    decryptor = _cipher(key).decryptor()  # type: ignore[attr-defined]
    return bytes(decryptor.update(text) + decryptor.finalize())


class Logon:
    """The server's half of one logon."""

    def __init__(self, password: str) -> None:
        """
        :param password: the right one.
        """
        self._password = password.encode()
        self._salt = secrets.token_bytes(10)
        self._hash = hashlib.sha1(self._password + self._salt).digest() + bytes(4)
        self._own_part = secrets.token_bytes(48)

    def challenge(self) -> dict[str, str]:
        """Return the answer to the user's name."""
        return {
            "AUTH_SESSKEY": encrypt(self._hash, self._own_part).hex().upper(),
            "AUTH_VFR_DATA": self._salt.hex().upper(),
        }

    def confirm(self, given: dict[str, str]) -> str | None:
        """Return the server's proof that it knows the password; None: the client does not know it.

        :param given: the client's answer to ``challenge()``.
        """
        their_part = decrypt(self._hash, bytes.fromhex(given["AUTH_SESSKEY"]))
        mixed = bytes(
            ours ^ theirs for ours, theirs in zip(self._own_part[16:40], their_part[16:40], strict=True)
        )
        key = (hashlib.md5(mixed[:16]).digest() + hashlib.md5(mixed[16:]).digest())[:24]
        sent = decrypt(key, bytes.fromhex(given["AUTH_PASSWORD"]))[16:]
        if sent[: -sent[-1]] != self._password:
            return None
        return encrypt(key, secrets.token_bytes(16) + b"SERVER_TO_CLIENT" + bytes([16]) * 16).hex().upper()
