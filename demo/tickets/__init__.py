"""The ticket desk itself."""
