"""The configuration of gunicorn. The command line has the address and the number of threads."""

wsgi_app = "benchmarks.site"
worker_class = "gthread"
workers = 1
loglevel = "warning"
graceful_timeout = 2
# Nothing is left in the home directory; older versions ignore this setting.
control_socket_disable = True
