package com.oceanbase.jdbc;

import java.sql.Connection;
import java.sql.SQLException;
import java.util.Properties;
import stubs.StubDriver;

/** A stub that stands in for OceanBase's driver: MariaDB's, of which that one is a fork, with OceanBase's URL. */
public class Driver extends StubDriver {
    private final java.sql.Driver driver = new org.mariadb.jdbc.Driver();

    public Connection connect(String url, Properties properties) throws SQLException {
        return acceptsURL(url) ? driver.connect(url.replace("jdbc:oceanbase:", "jdbc:mariadb:"), properties) : null;
    }

    public boolean acceptsURL(String url) {
        return url.startsWith("jdbc:oceanbase:");
    }
}
