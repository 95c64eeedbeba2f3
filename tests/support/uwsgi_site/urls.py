"""Its addresses."""

from __future__ import annotations

from django.urls import path

from tests.support.fork_site import urls
from tests.support.uwsgi_site import tasks

urlpatterns = [
    *urls.urlpatterns,
    path("send/<int:number>/", tasks.send),
    path("sleep/<str:who>/", tasks.sleep),
    path("thread/", tasks.thread),
]
