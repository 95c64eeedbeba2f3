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
        "ENGINE": "django.db.backends.mysql",
        "NAME": os.environ.get("DB_NAME", "shop"),
        "USER": os.environ.get("DB_USER", "shop"),
        "PASSWORD": os.environ.get("DB_PASSWORD", "secret"),
        "HOST": os.environ.get("DB_HOST", "127.0.0.1"),
        "PORT": os.environ.get("DB_PORT", "3306"),
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
    "ENGINE": "poollife.backends.mysql",  # was: django.db.backends.mysql
    "CONN_MAX_AGE": 0,
    "CONN_HEALTH_CHECKS": False,
    "POOL": {"pool_size": 1, "max_overflow": 1},  # a child runs one task at a time
}
CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0")
CELERY_RESULT_BACKEND = os.environ.get("RESULT_BACKEND", CELERY_BROKER_URL)
