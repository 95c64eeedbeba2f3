"""poollife's backends for Django's own tests, without the system checks of the project around them.

Django's tests write projects of their own, and test all that commands print in them. These projects have
poollife's ENGINE, but not its app and middleware, and two aliases on one server without sizes: the checks
would print that.
"""

from django.core.checks.registry import registry

from poollife.checks import check_databases, check_project

registry.registered_checks -= {check_databases, check_project}
