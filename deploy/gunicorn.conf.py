"""gunicorn for a site on poollife: ``gunicorn --config deploy/gunicorn.conf.py``, with your own values."""

import poollife.gunicorn

wsgi_app = "mysite.wsgi"
bind = "127.0.0.1:8000"

# The master loads the application once, and the workers share its memory. A new release then needs USR2 or a
# restart: HUP goes on with the old code.
preload_app = True

# A thread that waits for the database lets the others work. One connection for each thread is enough:
# pool_size = threads. workers x (pool_size + max_overflow) must stay below the server's max_connections, and
# twice as many during USR2.
worker_class = "gthread"
workers = 4
threads = 8

# Seconds, more than the slowest good request takes: if a worker is killed, the server has to end its
# transactions.
graceful_timeout = 30

# Each worker is replaced now and then; the jitter keeps them from being replaced at the same time.
max_requests = 10_000
max_requests_jitter = 1_000

# The last line, because it goes around the hooks that are defined above.
poollife.gunicorn.install(globals())
