"""poollife's MySQL backend, for Django's own tests."""
