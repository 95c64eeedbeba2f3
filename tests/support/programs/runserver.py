"""``manage.py runserver`` of a site of one view, which queries when it is imported, with Django's reloader.

Arguments: the port, and those that the site itself wants: the settings of a database, and a folder for a
module that will change.
"""

from __future__ import annotations

import json
import os
import sys

from django.core.management import execute_from_command_line
from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.support.programs import sockets
from tests.support.programs.databases import session, set_up

PORT, ENTRY, FOLDER = sys.argv[1:]
#: Of this interpreter, before it has opened any.
inherited = sockets.to_server(json.loads(ENTRY))


def look(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {"pid": os.getpid(), "parent": os.getppid(), "session": session(), "inherited": inherited}
    )


urlpatterns = [path("", look)]

if __name__ == "__main__":
    sys.path.insert(0, FOLDER)
    __import__("changing")
    set_up(
        {"default": json.loads(ENTRY)},
        ROOT_URLCONF="__main__",
        ALLOWED_HOSTS=["127.0.0.1"],
        DEBUG=True,
        MIDDLEWARE=["poollife.middleware.PoolMiddleware"],
    )
    print(json.dumps({"pid": os.getpid(), "session": session()}), flush=True)
    execute_from_command_line(["manage.py", "runserver", "--verbosity=1", PORT])
