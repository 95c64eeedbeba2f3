"""A site and gunicorn configurations that tell what happens to them, for tests/test_gunicorn.py."""
