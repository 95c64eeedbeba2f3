"""A project that ``manage.py check`` and a web server look at, with models on its default database."""
