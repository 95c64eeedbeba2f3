"""A lab for failovers: ``python -m tools.failover``."""
