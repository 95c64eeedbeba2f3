"""Throw-away TLS certificates."""

from __future__ import annotations

from pathlib import Path


class Certificates:
    """A certificate authority and a certificate of a server on this machine, as PEM files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Make the three files, and the folder if it is missing.

        :param folder: the folder of the files.
        """
        import trustme  # here, so that only tests with certificates need it

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"

        authority = trustme.CA()
        server = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(str(self.ca))
        self.cert.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
        self.key.touch(mode=0o600)
        server.private_key_pem.write_to_path(str(self.key))
