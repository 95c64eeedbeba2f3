"""``ENGINE = "poollife.backends.jdbc.oracle"``: Django's Oracle backend through JDBC. Experimental."""
