"""Access to the status page, if possible without the database."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.db import Error, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare, salted_hmac
from django.utils.module_loading import import_string
from django.views.decorators.http import require_safe

#: The setting: a callable that takes the request and returns a bool, or its dotted path.
SETTING = "POOLLIFE_STATUS_ACCESS"
#: The cookie, and the seconds for which it spares a member of the staff the database.
PASS, PASS_SECONDS = "poollife_status", 8 * 3600

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
REFUSED = f"For staff only. The setting {SETTING} can decide otherwise.\n"
UNKNOWN = (
    "The database has no connection to spare for the question whether you are staff. "
    f"On the host, `manage.py pool_status` shows the pools; {SETTING} can decide without the database.\n"
)

View = Callable[..., HttpResponse]


def is_staff(request: HttpRequest) -> bool:
    """Return whether the request's user is an active member of the staff: the default of the setting.

    Without a session's cookie Django does not ask the database who that is.

    :param request: without ``django.contrib.auth`` it has no user: then the answer is False.
    """
    user = getattr(request, "user", None)
    return bool(user and user.is_active and user.is_staff)


def guarded(view: View) -> View:
    """Return a view that answers GET and HEAD of those with access, and borrows no connection itself.

    A member of the staff who was let in once needs no query for the next eight hours: all connections may be
    out by then.

    :param view: its answer gets the headers for security.
    """

    @wraps(view)
    def guard(request: HttpRequest, **arguments: Any) -> HttpResponse:
        check = configured()
        known = check is is_staff and has_pass(request)
        try:
            allowed = known or check(request)
        except Error:
            return _plain(UNKNOWN, 503)
        if not allowed:
            return _plain(REFUSED, 403)
        response = view(request, **arguments)
        if check is is_staff and not known:
            give_pass(request, response)
        return response

    @wraps(view)
    def answer(request: HttpRequest, **arguments: Any) -> HttpResponse:
        response = require_safe(guard)(request, **arguments)
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    # Django's LoginRequiredMiddleware would send a request to the login view before it is asked here.
    answer.login_required = False  # type: ignore[attr-defined]
    guarded_view: View = answer
    for alias in connections:  # ATOMIC_REQUESTS would borrow a connection
        guarded_view = transaction.non_atomic_requests(using=alias)(guarded_view)
    return guarded_view


def configured() -> Callable[[HttpRequest], Any]:
    """Return the callable that the settings name."""
    given = getattr(settings, SETTING, is_staff)
    found: Callable[[HttpRequest], Any] = import_string(given) if isinstance(given, str) else given
    return found


def has_pass(request: HttpRequest) -> bool:
    """Return whether this browser was let in before, in the session that it is in now."""
    expected = _pass_of(request)
    given = request.get_signed_cookie(PASS, default="", salt=PASS, max_age=PASS_SECONDS)
    return bool(expected) and constant_time_compare(given or "", expected)


def give_pass(request: HttpRequest, response: HttpResponse) -> None:
    """Note in a signed cookie that this session is one of the staff's. Logging out makes it worthless."""
    if value := _pass_of(request):
        response.set_signed_cookie(
            PASS,
            value,
            salt=PASS,
            max_age=PASS_SECONDS,
            path=request.path[: request.path.rindex("/") + 1],
            secure=request.is_secure(),
            httponly=True,
            samesite="Strict",
        )


def _pass_of(request: HttpRequest) -> str:
    session = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    return salted_hmac(PASS, session, algorithm="sha256").hexdigest() if session else ""


def _plain(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
