"""``ENGINE = "poollife.backends.jdbc.oceanbase"``: raw SQL on OceanBase through JDBC. Experimental."""
