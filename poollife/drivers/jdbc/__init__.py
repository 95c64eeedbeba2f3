"""JDBC: databases through Java drivers, and JPype."""
