"""Applications as they were with other pools, after the examples of their documentation.

``settings.py.before`` and ``app.py.before`` name packages that are not installed here, and run only after the
change that docs/changing-over.md tells. ``printed.txt`` is what the application then has to print.
"""
