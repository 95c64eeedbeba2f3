"""One page: the number of the session that its query ran in, and of the process that answered."""

import os

from django.db import connection
from django.http import JsonResponse
from django.urls import path


def session(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (number,) = cursor.fetchone()
    return JsonResponse({"session": number, "process": os.getpid()})


urlpatterns = [path("", session)]
