"""A site and gunicorn configurations that tell what happens to them, for tests/hooks/test_gunicorn.py."""
