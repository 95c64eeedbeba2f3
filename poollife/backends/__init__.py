"""Floor 1, Django: one mixin, and one package per ENGINE."""

# The system checks come with whatever loads an ENGINE, so that a site without the app is told of that, too.
import poollife.checks  # noqa: F401
