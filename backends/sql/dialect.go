package sql

import (
	"context"
	"database/sql"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/database"
)

// Dialect is one kind of database: with what every room needs of it ([database.Dialect]), what tables of results do.
type Dialect struct {
	database.Dialect

	// Create returns the statements that make one of Celery's tables as SQLAlchemy does on this server.
	Create func(ctx context.Context, db *sql.DB, t Table) ([]string, error)
	// NewID returns the SQL of the id of a new row. Sequence is the one SQLAlchemy makes for the table, "" for Django's.
	NewID func(ctx context.Context, db *sql.DB, t Table, sequence string) (string, error)
	// Limits returns how much the columns of a table take; nil: the database does not mind.
	Limits func(ctx context.Context, db *sql.DB, t Table) (map[string]Limit, error)

	// DuplicateKey says that rows are replaced by ON DUPLICATE KEY, not by ON CONFLICT.
	DuplicateKey bool
	// Binary makes the database compare a text by its bytes where its own = is more generous; nil: it is not.
	Binary func(expr string) string
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

// Register makes the databases of a dialect known to backends.Open, for Celery's tables (db+) and Django's (django-db+), and
// to [database.Open] for other rooms. The packages below this one call it from init.
func Register(d *Dialect) {
	database.Register(&d.Dialect)
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
