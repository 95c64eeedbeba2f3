# gunicorn.conf.py
import poollife.gunicorn

wsgi_app = "mysite.wsgi"
bind = "127.0.0.1:8000"
worker_class = "gthread"
workers = 4
threads = 8
preload_app = True

poollife.gunicorn.install(globals())  # the last line
