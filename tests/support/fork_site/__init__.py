"""A site that queries when it is imported, in gunicorn's master, and whose views fork."""
