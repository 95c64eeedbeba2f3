"""A site as it was with stock Django, and behind it the lines for poollife."""

import os

SECRET_KEY = "an example has no secrets"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "mysite.urls"
USE_TZ = True
INSTALLED_APPS = []
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("DB_NAME", "shop"),
        "USER": os.environ.get("DB_USER", "shop"),
        "PASSWORD": os.environ.get("DB_PASSWORD", "secret"),
        "HOST": os.environ.get("DB_HOST", "127.0.0.1"),
        "PORT": os.environ.get("DB_PORT", "5432"),
    }
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "loggers": {"poollife": {"handlers": ["console"], "level": "INFO"}},
}

# mysite/settings.py, at the end
INSTALLED_APPS = ["poollife", *INSTALLED_APPS]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware", *MIDDLEWARE]
DATABASES["default"] |= {
    "ENGINE": "poollife.backends.postgresql",  # was: django.db.backends.postgresql
    "CONN_MAX_AGE": 0,
    "CONN_HEALTH_CHECKS": False,
    "POOL": {"pool_size": 8, "max_overflow": 2},  # as many as query at once
}
