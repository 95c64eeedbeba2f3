"""The site, with a query when it is imported: under ``--preload`` that is in the master."""

import os

from django.core.wsgi import get_wsgi_application

from tests.support.gunicorn_site.notes import note, session

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.support.gunicorn_site.settings")
application = get_wsgi_application()
note("import", session())
