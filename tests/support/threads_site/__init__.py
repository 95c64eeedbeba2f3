"""A site whose views work in threads and tasks of their own."""
