"""``ENGINE = "poollife.backends.jdbc"``: raw SQL on any database with a JDBC driver."""
