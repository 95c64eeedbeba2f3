"""The board: the numbers of the pools of all processes of a site on this host, in shared memory.

Each process has its numbers in files of its own (``page.py``), which any process may read (``reader.py``). So
a process that hangs, or that was killed, can be looked at, too. Nothing of it takes part in a checkout but
plain stores into memory.
"""
