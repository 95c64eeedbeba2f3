"""A Django project whose databases have rows to lose; test_law_8_test_databases.py runs its tests."""
