"""The layer of SQLAlchemy: the pools of this process, and their leases."""
