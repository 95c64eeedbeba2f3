"""gunicorn for a site on poollife: ``gunicorn --config deploy/gunicorn.conf.py``, with your own values."""

import poollife.gunicorn

wsgi_app = "mysite.wsgi"
bind = "127.0.0.1:8000"

# The application is loaded once, in the master, and its memory is shared. A new release then needs USR2, or a
# restart: HUP would go on with the old code.
preload_app = True

# Threads wait for the database while others work. One connection each is enough: pool_size = threads, and
# workers x (pool_size + max_overflow) must fit into the server's max_connections, twice during USR2.
worker_class = "gthread"
workers = 4
threads = 8

# More than the slowest good request takes: a worker that is killed leaves transactions for the server to end.
graceful_timeout = 30

# A fresh process now and then, not all at the same time.
max_requests = 10_000
max_requests_jitter = 1_000

# The last line: it goes around your hooks above.
poollife.gunicorn.install(globals())
