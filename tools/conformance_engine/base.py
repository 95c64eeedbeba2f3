"""poollife's wrapper, without the system check that looks at the project around it.

Django's tests write projects of their own and read every word that commands print in them. Those projects
have our ENGINE, but not our app and middleware, and the check would say so.
"""

from django.core.checks.registry import registry

from poollife.backends.mysql.base import DatabaseWrapper
from poollife.checks import check_project

__all__ = ["DatabaseWrapper"]

registry.registered_checks.discard(check_project)
