"""A Django project whose databases have rows to lose; test_databases.py runs its tests."""
