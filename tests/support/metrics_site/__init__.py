"""tests/support/fork_site with metrics for Prometheus and OpenTelemetry."""
