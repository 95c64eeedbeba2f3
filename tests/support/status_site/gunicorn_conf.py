"""How gunicorn serves it: a thread for each request that keeps or wants a connection, and for the page."""

wsgi_app = "tests.support.status_site.wsgi"
worker_class = "gthread"
workers = 2
threads = 24
timeout = 120
graceful_timeout = 1
loglevel = "warning"
control_socket_disable = True
