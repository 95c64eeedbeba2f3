"""What poollife would be without invariant 8: a pool for each alias, whatever database it leads to.

These engines lose the rows of the real database, which proves that the tests of invariant 8 would notice.
"""
