"""tests/support/fork_site under uWSGI, with a mule and a spooler beside its workers."""
