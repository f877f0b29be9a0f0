package sql

import (
	"context"
	"database/sql"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/brokerurl"
)

// Dialect is one kind of database: what is its own in connecting, in SQL and in errors.
type Dialect struct {
	// Names are SQLAlchemy's in URLs, "postgresql" and "postgresql+psycopg2": db+postgresql://…
	Names []string

	// Connect opens a pool without connecting. The URL's Scheme has lost what stands before the name.
	Connect func(u brokerurl.URL) (*sql.DB, error)

	// Create returns the statements that make one of Celery's tables as SQLAlchemy does on this server.
	Create func(ctx context.Context, db *sql.DB, t Table) ([]string, error)
	// NewID returns the SQL of the id of a new row. Sequence is the one SQLAlchemy makes for the table, "" for Django's.
	NewID func(ctx context.Context, db *sql.DB, t Table, sequence string) (string, error)
	// Limits returns how much the columns of a table take; nil: the database does not mind.
	Limits func(ctx context.Context, db *sql.DB, t Table) (map[string]Limit, error)

	// Placeholder is the n-th argument, from 1 on.
	Placeholder func(n int) string
	// Quote makes an identifier of a name.
	Quote func(name string) string
	// Time is a date in UTC as the database's columns take it.
	Time func(t time.Time) any
	// DuplicateKey says that rows are replaced by ON DUPLICATE KEY, not by ON CONFLICT.
	DuplicateKey bool
	// Binary makes the database compare a text by its bytes where its own = is more generous; nil: it is not.
	Binary func(expr string) string

	// Kind sorts an error.
	Kind func(err error) Kind
}

// Table is a table by its name and schema, which may be empty.
type Table struct {
	Schema, Name string
	Group        bool // celery_tasksetmeta, not celery_taskmeta
}

// Sequence is the sequence SQLAlchemy makes for the ids of one of Celery's tables, where the database has sequences.
func (t Table) Sequence() string {
	if t.Group {
		return "taskset_id_sequence"
	}
	return "task_id_sequence"
}

// Limit is what a column takes; 0 is no limit.
type Limit struct {
	Characters, Bytes int
	ASCII             bool // the only characters of which it is sure that the column has them
}

// Kind says what an error of a database calls for.
type Kind int

const (
	Fatal       Kind = iota // asking again will not help
	Unavailable             // the database is away, busy or full: ask again
	Raced                   // another writer came in between: ask again at once
	Unfit                   // a value does not fit its column
)

func (k Kind) again() bool { return k == Unavailable || k == Raced }

// Register makes the databases of a dialect known to backends.Open, for Celery's tables (db+) and Django's (django-db+).
// The packages below this one call it from init.
func Register(d *Dialect) {
	for _, name := range d.Names {
		open := func(ctx context.Context, url string, o backends.Options) (backends.Backend, error) {
			return openURL(ctx, d, url, o)
		}
		backends.Register(open, celeryScheme+name, djangoScheme+name)
	}
}

const (
	celeryScheme = "db+"
	djangoScheme = "django-db+"
)
