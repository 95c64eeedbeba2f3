"""One site in three kinds of processes: gunicorn, uWSGI and Celery, with one board."""
