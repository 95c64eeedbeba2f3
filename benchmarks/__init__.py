"""poollife beside what else pools Django's MySQL connections, in one run: ``make bench``."""
