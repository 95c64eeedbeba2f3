"""Settings for the mypy plugin of django-stubs, which asks Django about the demo's models.

They are not the demo's own, so that a mistake in the package is reported like any other, instead of keeping
the plugin from starting.
"""

SECRET_KEY = "not used"
INSTALLED_APPS = ["demo.tickets"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
