"""The Django layer: one mixin, and one package for each ENGINE."""

# Loading an ENGINE registers the system checks, so that they also report a site without the app.
import poollife.checks  # noqa: F401
