"""``ENGINE = "poollife.backends.postgis"``: GeoDjango on PostgreSQL."""
