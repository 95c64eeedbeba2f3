"""Floor 2, SQLAlchemy: the pools of this process, and the leases they hand out."""
