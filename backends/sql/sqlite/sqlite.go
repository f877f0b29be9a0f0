// Package sqlite is the database result backend on SQLite: results in one file, for one machine, and for development.
// Importing it makes db+sqlite:// and django-db+sqlite:// known to backends.Open. As in SQLAlchemy three slashes begin a
// relative path and four an absolute one: db+sqlite:////var/lib/results.db. There is no database in memory: each
// connection would have its own; memory:// is for that.
package sqlite

import (
	"context"
	dbsql "database/sql"
	"errors"
	"fmt"
	"net/url"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/gelery/gelery/backends/sql"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/database"
)

func init() { sql.Register(dialect) }

// busyTimeout is how long a statement waits in SQLite for another writer; after that it is tried again.
const busyTimeout = 2 * time.Second

var dialect = &sql.Dialect{
	Dialect: database.Dialect{
		Names:       []string{"sqlite", "sqlite+pysqlite"},
		Connect:     connect,
		Placeholder: func(int) string { return "?" },
		Quote:       sql.DoubleQuoted,
		Time:        sql.PlainTime,
		Kind:        kind,
	},
	Create: create,
	NewID:  func(context.Context, *dbsql.DB, sql.Table, string) (string, error) { return "NULL", nil },
	Limits: func(context.Context, *dbsql.DB, sql.Table) (map[string]sql.Limit, error) { return nil, nil },
}

func connect(u brokerurl.URL) (*dbsql.DB, error) {
	switch {
	case u.Host != "":
		return nil, errors.New("a file has no host; expected for example db+sqlite:////var/lib/results.db")
	case u.Path == "" || u.Path == ":memory:":
		return nil, errors.New("a database in memory is not supported; expected for example db+sqlite:////var/lib/results.db, or memory:// for a backend in memory")
	case len(u.Query) > 0:
		return nil, errors.New("the URL of a SQLite file has no options")
	}
	path := url.URL{Path: u.Path}
	return dbsql.Open("sqlite", fmt.Sprintf("file:%s?_pragma=busy_timeout(%d)", path.EscapedPath(), busyTimeout.Milliseconds()))
}

func create(_ context.Context, _ *dbsql.DB, t sql.Table) ([]string, error) {
	return sql.CreateTable(t, sql.DoubleQuoted, sql.Types{ID: "INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT", Bytes: "BLOB", Time: "DATETIME"}), nil
}

func kind(err error) database.Kind {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return database.Fatal
	}
	switch e.Code() & 0xff { // without the details
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_NOMEM:
		return database.Unavailable
	case sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return database.Unfit
	}
	return database.Fatal
}
