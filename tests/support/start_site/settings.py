"""Its settings; databases come from the environment, as JSON. The log "poollife" goes to stderr."""

from __future__ import annotations

import json
import os

from django.http import HttpRequest, HttpResponse
from django.urls import path

DATABASES = json.loads(os.environ["START_SITE_DATABASES"])
INSTALLED_APPS = ["poollife"]
ROOT_URLCONF = __name__
ALLOWED_HOSTS = ["*"]
SECRET_KEY = "tests"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "poollife {levelname} {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"poollife": {"handlers": ["stderr"], "level": "INFO"}},
}


def pid(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("", pid)]
