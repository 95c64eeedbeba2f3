"""``ENGINE = "poollife.backends.postgresql"``: PostgreSQL through psycopg 3 or psycopg2."""
