"""PostgreSQL, by psycopg 3 and by psycopg2."""
