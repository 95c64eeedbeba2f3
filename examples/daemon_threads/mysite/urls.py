"""No pages: this site has a command that runs for days."""

urlpatterns = []
