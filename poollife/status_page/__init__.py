"""The status page: the board as HTML and as JSON, without a query and without a request to another origin.

``views.py`` answers, ``access.py`` decides on access, ``summary.py`` has what is shown, ``causes.py``
says what is wrong, ``recent.py`` remembers the counters of the last minute. ``assets/`` is what the browser
gets.
"""
