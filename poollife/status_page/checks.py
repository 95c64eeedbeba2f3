"""The system check of the setting for the status page, which the app registers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, register
from django.utils.module_loading import import_string

from poollife.checks import TAG
from poollife.status_page.access import SETTING


@register(TAG)
def check_access(**_: Any) -> list[CheckMessage]:
    """Check that the setting names a callable: else each request for the page would fail."""
    return list(_of_access(getattr(settings, SETTING))) if hasattr(settings, SETTING) else []


def _of_access(given: object) -> Iterator[CheckMessage]:
    reason = "it is neither a callable nor the dotted path of one"
    found = given
    if isinstance(given, str):
        try:
            found = import_string(given)
        except Exception as error:  # whatever the module raises
            reason = f"{type(error).__name__}: {error}"
    if not callable(found):
        yield checks.Error(
            f"{SETTING} is {given!r}: {reason}.",
            hint="Give a function that takes the request and returns a bool, or leave the setting out: then "
            "the staff have access.",
            id="poollife.E007",
        )
