"""Floor 3, DB-API: what one driver needs to be pooled and forked safely.

A driver's module is imported by its backend only.
"""
