// Package postgresql is the database result backend on PostgreSQL. Importing it makes db+postgresql:// and
// django-db+postgresql:// known to backends.Open, also with the drivers' names that SQLAlchemy knows (psycopg2, psycopg).
// The query of a URL holds libpq's parameters: sslmode, host (a socket's folder), connect_timeout, application_name.
package postgresql

import (
	"context"
	dbsql "database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/gelery/gelery/backends/sql"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/database"
)

func init() { sql.Register(dialect) }

var dialect = &sql.Dialect{
	Dialect: database.Dialect{
		Names:       []string{"postgresql", "postgresql+psycopg2", "postgresql+psycopg"},
		Connect:     connect,
		Placeholder: func(n int) string { return "$" + strconv.Itoa(n) },
		Quote:       sql.DoubleQuoted,
		Time:        func(t time.Time) any { return t },
		Kind:        kind,
	},
	Create: create,
	NewID:  newID,
	Limits: limits,
}

// connectTimeout bounds one attempt, unless the URL does.
const connectTimeout = 4 * time.Second

func connect(u brokerurl.URL) (*dbsql.DB, error) {
	target := url.URL{Scheme: "postgresql", Host: hostPort(u), Path: "/" + u.Path, RawQuery: u.Query.Encode()}
	if u.User != "" || u.Password != "" {
		target.User = url.UserPassword(u.User, u.Password)
	}
	config, err := pgx.ParseConfig(target.String())
	if err != nil {
		return nil, fmt.Errorf("%s: its parameters cannot be used", u.Redacted()) // the error itself may show the password
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	// Nothing is prepared in the server, so that a pool of connections (PgBouncer) may stand in between.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	return stdlib.OpenDB(*config), nil
}

func hostPort(u brokerurl.URL) string {
	switch {
	case u.Port != 0:
		return net.JoinHostPort(u.Host, strconv.Itoa(u.Port))
	case strings.Contains(u.Host, ":"):
		return "[" + u.Host + "]"
	}
	return u.Host
}

func qualified(t sql.Table, name string) string {
	if t.Schema != "" {
		return sql.DoubleQuoted(t.Schema) + "." + sql.DoubleQuoted(name)
	}
	return sql.DoubleQuoted(name)
}

func create(_ context.Context, _ *dbsql.DB, t sql.Table) ([]string, error) {
	statements := sql.CreateTable(t, sql.DoubleQuoted, sql.Types{ID: "INTEGER NOT NULL", Bytes: "BYTEA", Time: "TIMESTAMP WITHOUT TIME ZONE"})
	return append([]string{"CREATE SEQUENCE IF NOT EXISTS " + qualified(t, t.Sequence())}, statements...), nil
}

// newID is the next number of SQLAlchemy's sequence where that is there, else what the column's own default is.
func newID(ctx context.Context, db *dbsql.DB, t sql.Table, sequence string) (string, error) {
	if sequence == "" {
		return "DEFAULT", nil
	}
	name := qualified(t, sequence)
	var there bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&there); err != nil || !there {
		return "DEFAULT", err
	}
	return "nextval('" + strings.ReplaceAll(name, "'", "''") + "')", nil
}

func limits(ctx context.Context, db *dbsql.DB, t sql.Table) (map[string]sql.Limit, error) {
	rows, err := db.QueryContext(ctx, "SELECT attname, atttypmod - 4 FROM pg_attribute"+
		" WHERE attrelid = to_regclass($1) AND atttypid = 'varchar'::regtype AND atttypmod > 4", qualified(t, t.Name))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := map[string]sql.Limit{}
	for rows.Next() {
		var name string
		var size int
		if err := rows.Scan(&name, &size); err != nil {
			return nil, err
		}
		found[name] = sql.Limit{Characters: size}
	}
	return found, rows.Err()
}

// kind goes by SQLSTATE; what has none did not come from the server.
func kind(err error) database.Kind {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		var config *pgconn.ParseConfigError
		if errors.As(err, &config) || errors.Is(err, dbsql.ErrConnDone) {
			return database.Fatal
		}
		return database.Unavailable
	}
	switch e.Code {
	case "55P03", "25006": // somebody holds a lock; read only, as a server is that lost its role
		return database.Unavailable
	case "23505": // the same row, written by two
		return database.Raced
	}
	switch e.Code[:2] {
	case "08", "40", "53", "57", "58": // connections, conflicts of transactions, resources, an operator, the system
		return database.Unavailable
	case "22", "54": // data, limits
		return database.Unfit
	}
	return database.Fatal
}
