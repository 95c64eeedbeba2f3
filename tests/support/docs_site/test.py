"""Run the tests of one module by Django's own runner: so many of them, all passing."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout

import django
from django.conf import settings
from django.test.utils import get_runner

if __name__ == "__main__":
    module, number = sys.argv[1:]
    django.setup()
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        failures = get_runner(settings)(interactive=False).run_tests([module])
    if failures or f"Ran {number} test" not in told.getvalue():
        sys.exit(told.getvalue())
