"""The status page's default access, in a site with users and sessions in the database: a pool of one."""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import django
from django.conf import settings


def main(database: dict[str, Any]) -> None:
    """Print the statuses of some requests, and how many checkouts each of them took."""
    settings.configure(
        DATABASES={"default": {**database, "ATOMIC_REQUESTS": True}},
        INSTALLED_APPS=[
            "poollife",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        MIDDLEWARE=[
            "poollife.middleware.PoolMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        ROOT_URLCONF="tests.support.status_site.urls",
        ALLOWED_HOSTS=["testserver"],
        SECRET_KEY="tests",
        USE_TZ=True,
    )
    django.setup()
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.test import Client
    from django.test.utils import modify_settings

    from poollife import auto_close_db, pool_stats
    from poollife.status_page.access import PASS
    from tests.support.programs.databases import hold

    call_command("migrate", verbosity=0)
    visitor, member, known, left = (Client() for _ in range(4))
    for client, is_staff in ((visitor, False), (member, True), (known, True), (left, True)):
        client.force_login(User.objects.create_user(f"user{id(client)}", is_staff=is_staff))

    def ask(client: Client, where: str = "") -> tuple[int, int]:
        django.db.connections.close_all()
        before = pool_stats()["default"]["checkouts"]
        status = client.get(f"/pools/{where}").status_code
        return status, pool_stats()["default"]["checkouts"] - before

    report = {
        "nobody": ask(Client()),
        "visitor": ask(visitor),
        "known": ask(known),
        "known again": ask(known, "status.json"),
        "left": ask(left),
    }
    with modify_settings(MIDDLEWARE={"append": "django.contrib.auth.middleware.LoginRequiredMiddleware"}):
        report["login required"] = ask(Client())
    # The browser keeps the cookie of the page, and has another session.
    kept = left.cookies[PASS].value
    left.logout()
    left.force_login(User.objects.get(username=f"user{id(visitor)}"))
    left.cookies[PASS] = kept
    report["another session"] = ask(left)
    django.db.connections.close_all()
    ready, over = threading.Event(), threading.Event()

    @auto_close_db
    def keep() -> None:
        hold()
        ready.set()
        over.wait()

    thread = threading.Thread(target=keep)
    thread.start()
    try:
        assert ready.wait(30)
        report["dry, nobody"] = ask(Client())
        report["dry, member"] = ask(member)
        report["dry, known"] = ask(known)
    finally:
        over.set()
        thread.join()
    print(json.dumps(report))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
