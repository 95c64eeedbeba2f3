"""A small Django site that real web servers run for the tests."""
