"""The kit: the invariants as tests that every driver has to pass.

No test here names a driver. ``backends.py`` describes them; a new driver is a new description.
"""
