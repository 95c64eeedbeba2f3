"""``tests.support.docs_site.wsgi:application``, for gunicorn to load."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
