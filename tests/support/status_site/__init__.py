"""A site with the status page, under gunicorn: quiet, busy, with all connections out, or without a server."""
