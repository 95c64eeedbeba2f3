"""Print the ids of what poollife's system checks find."""

from __future__ import annotations

import django
from django.core.checks import run_checks

if __name__ == "__main__":
    django.setup()
    # Newer versions of Django ask the server in theirs.
    print(*sorted(str(issue.id) for issue in run_checks(tags=["poollife"])))
