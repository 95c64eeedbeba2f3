"""A site for tickets on pooled connections, and a runner that tests it under load: `python -m demo`."""
