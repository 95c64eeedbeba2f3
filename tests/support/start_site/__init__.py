"""A site of one page for the tests of the line that a server logs when it starts."""
