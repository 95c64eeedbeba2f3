"""A web server that carries out the first request that it gets, and hangs up before it has answered."""

from __future__ import annotations

import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Notes each request."""

    def do_GET(self) -> None:
        with Path(os.environ["FORK_SITE_FOLDER"], "asked").open("a+") as file:
            file.write(f"{self.path}\n")
            file.seek(0)
            first = len(file.readlines()) == 1
        if not first:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
