package oracle.jdbc;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.Driver;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CopyOnWriteArrayList;
import stubs.StubDriver;

/**
 * A stub that stands in for Oracle's driver: it takes Oracle's URL, and connects to the database H2 in Oracle mode. The
 * little of Oracle's SQL that H2 lacks and Django sends to each session is rewritten.
 */
public class OracleDriver extends StubDriver {
    /** What arrived: URLs, and statements before they are rewritten. */
    public static final List<String> heard = new CopyOnWriteArrayList<>();

    private final Driver driver = new org.h2.Driver();

    public Connection connect(String url, Properties properties) throws SQLException {
        if (!acceptsURL(url)) {
            return null;
        }
        heard.add(url);
        String h2 = "jdbc:h2:mem:stub;MODE=Oracle;DB_CLOSE_DELAY=-1;USER=stub;PASSWORD=stub";
        return rewriting(driver.connect(h2, new Properties()), Connection.class);
    }

    private static String rewritten(String sql) throws SQLException {
        heard.add(sql);
        if (sql.endsWith(";") || sql.endsWith("/")) {
            throw new SQLException("ORA-00911: invalid character", "22019", 911);
        }
        return sql.startsWith("ALTER SESSION") ? "SET @session = 1" : sql.replaceAll("TRANSLATE\\((\\S+) USING NCHAR_CS\\)", "$1");
    }

    /** Returns a proxy that rewrites the statements of a connection, and of the statements that it makes. */
    private static <T> T rewriting(Object target, Class<T> type) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, (proxy, method, arguments) -> {
            if (arguments != null && arguments[0] instanceof String && method.getName().matches("execute|prepare.*")) {
                arguments[0] = rewritten((String) arguments[0]);
            }
            if (method.getName().equals("getDatabaseMajorVersion")) {
                return 19;
            }
            try {
                Object found = method.invoke(target, arguments);
                Class<?> kind = method.getReturnType();
                return kind == Statement.class || kind == DatabaseMetaData.class ? rewriting(found, kind) : found;
            } catch (InvocationTargetException error) {
                throw error.getCause();
            }
        }));
    }

    public boolean acceptsURL(String url) {
        return url.startsWith("jdbc:oracle:thin:@//");
    }
}
