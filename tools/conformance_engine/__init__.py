"""poollife's backends for Django's own tests, without the system check of the project around them.

Django's tests write projects of their own, and test all that commands print in them. These projects have
poollife's ENGINE, but not its app and middleware, and the check would print that.
"""

from django.core.checks.registry import registry

from poollife.checks import check_project

registry.registered_checks.discard(check_project)
