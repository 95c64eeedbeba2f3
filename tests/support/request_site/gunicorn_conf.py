"""How gunicorn serves it; the address and the worker class come from the command line."""

wsgi_app = "tests.support.request_site.wsgi"
workers = 1
timeout = 60
graceful_timeout = 2
control_socket_disable = True  # leave nothing in the home directory; older versions don't know it
