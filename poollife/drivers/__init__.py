"""The DB-API layer: all that one driver needs to be pooled and forked safely.

Only the backend of a driver imports the driver's module.
"""
