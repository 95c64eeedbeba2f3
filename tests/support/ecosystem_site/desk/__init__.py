"""The only app of the site."""
