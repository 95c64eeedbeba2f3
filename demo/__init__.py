"""A ticket desk on pooled connections, and the runner that tries to break it: `python -m demo`."""
