"""A site with jobs for RQ, Huey and Django's tasks framework."""
