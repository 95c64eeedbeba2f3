"""Benchmarks of poollife and of other pools for Django's MySQL connections, in one run: ``make bench``."""
