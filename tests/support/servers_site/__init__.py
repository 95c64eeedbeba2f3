"""tests/support/fork_site under web servers that make their workers in all sorts of ways."""
