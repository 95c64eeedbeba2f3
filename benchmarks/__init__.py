"""Benchmarks of poollife and of other pools for Django's connections, in one run: ``make bench``."""
