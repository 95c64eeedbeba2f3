"""poollife's backends for Django's own tests, without the system check of the project around them.

Django's tests write projects of their own and read every word that commands print in them. Those projects
have our ENGINE, but not our app and middleware, and the check would say so.
"""

from django.core.checks.registry import registry

from poollife.checks import check_project

registry.registered_checks.discard(check_project)
