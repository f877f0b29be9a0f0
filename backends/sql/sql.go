// Package sql is Celery's database result backend: the tables celery_taskmeta and celery_tasksetmeta as SQLAlchemy makes
// them, so that Go and Python read each other's results; and, for those who have them, the tables of
// django-celery-results. The packages below it bring the databases:
//
//	import _ "github.com/gelery/gelery/backends/sql/postgresql" // db+postgresql://user:password@host/database
//	import _ "github.com/gelery/gelery/backends/sql/sqlite"     // db+sqlite:////path/file.db
//
// With django-db+ in place of db+ the tables are Django's.
//
// Celery's table has no place for the children of a task, its group, its parent and its stamps: they are lost. Results are
// pickles whatever the serializer, which are written and read without executing anything. Nothing expires by itself:
// [Backend.Cleanup] removes it.
package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/database"
	"github.com/gelery/gelery/internal/retry"
	"github.com/gelery/gelery/protocol"
)

const defaultExpires = 24 * time.Hour

// Backend is an open database.
type Backend struct {
	dialect *Dialect
	db      *sql.DB
	layout  layout
	create  bool
	expires time.Duration // negative: never
	log     *slog.Logger
	policy  retry.Policy
	poller  *backends.Poller
	closed  atomic.Bool

	preparing sync.Mutex // held while the tables are looked at
	prepared  atomic.Pointer[tables]
}

// tables is what is known of the tables once they were looked at.
type tables struct{ task, group *table }

// table is one table as it is.
type table struct {
	Table
	quoted  string
	newID   string
	columns map[string]bool
	limits  map[string]Limit
}

// openURL opens a database. It makes Celery's tables if they are not there, and changes none that are; Django's must be
// there. It tries until the database answers or ctx is done; with Lazy all that comes with the first use.
//
// Transport options: table_names and table_schemas, maps of "task" and "group", create_tables_at_setup (default true), and
// engine_options, a map of SQLAlchemy's pool_size, max_overflow and pool_recycle (default: 8 connections of an hour): Celery's
// settings of these names behind database_. They are not for Django's tables.
func openURL(ctx context.Context, d *Dialect, url string, o backends.Options) (backends.Backend, error) {
	urls, err := brokerurl.Parse(url)
	if err == nil && len(urls) > 1 {
		err = errors.New("a database is one URL, not a list")
	}
	if err != nil {
		return nil, fmt.Errorf("result backend: %w", err)
	}
	u := urls[0]
	codec, err := backends.NewCodec(o)
	if err != nil {
		return nil, err
	}
	b := &Backend{dialect: d, expires: o.Expires, log: o.Logger}
	if b.expires == 0 {
		b.expires = defaultExpires
	}
	if b.log == nil {
		b.log = slog.Default()
	}
	b.log = b.log.With("backend", u.Redacted())
	options, err := parseOptions(o.TransportOptions)
	if err != nil {
		return nil, err
	}
	name, django := strings.CutPrefix(u.Scheme, djangoScheme)
	if django {
		if len(o.TransportOptions) > 0 {
			return nil, errors.New("transport options are not for Django's tables, which have their own names")
		}
		b.layout = djangoLayout{codec: codec, time: d.Time}
	} else {
		name = strings.TrimPrefix(u.Scheme, celeryScheme)
		b.layout = celeryLayout{codec: codec, time: d.Time, names: options.names, schemas: options.schemas}
		b.create = options.create
	}
	u.Scheme = name
	if b.db, err = d.Connect(u); err != nil {
		return nil, fmt.Errorf("result backend: %w", err)
	}
	options.apply(b.db)
	b.policy = retry.Policy{Server: "the database", Again: func(err error) bool { return !b.closed.Load() && b.kind(err).Again() }}
	b.poller = backends.NewPoller(b.poll)
	if o.Lazy {
		return b, nil
	}
	if err := b.do(ctx, "connect to result backend", func(context.Context, *tables) error { return nil }); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Backend) kind(err error) database.Kind {
	var unfit *backends.EncodeError
	switch {
	case errors.As(err, &unfit), errors.Is(err, backends.ErrClosed), errors.Is(err, context.Canceled):
		return database.Fatal
	case errors.Is(err, context.DeadlineExceeded): // of one try
		return database.Unavailable
	}
	return b.dialect.Kind(err)
}

// do calls f until it succeeds or fails for good, with the tables as they are.
func (b *Backend) do(ctx context.Context, what string, f func(ctx context.Context, t *tables) error) error {
	err := b.policy.Do(ctx, b.log, what, func(ctx context.Context) error {
		if b.closed.Load() {
			return backends.ErrClosed
		}
		t, err := b.look(ctx)
		if err != nil {
			return err
		}
		return f(ctx, t)
	})
	if err != nil && b.closed.Load() {
		return backends.ErrClosed
	}
	return err
}

// look makes the tables if they are to be made, and looks at them once.
func (b *Backend) look(ctx context.Context) (*tables, error) {
	if t := b.prepared.Load(); t != nil {
		return t, nil
	}
	b.preparing.Lock()
	defer b.preparing.Unlock()
	if t := b.prepared.Load(); t != nil {
		return t, nil
	}
	task, group, sequences := b.layout.tables()
	t := &tables{}
	var err error
	if t.task, err = b.lookAt(ctx, task, sequences[0]); err == nil {
		t.group, err = b.lookAt(ctx, group, sequences[1])
	}
	if err != nil {
		return nil, err
	}
	b.prepared.Store(t)
	return t, nil
}

func (b *Backend) lookAt(ctx context.Context, named Table, sequence string) (*table, error) {
	t := &table{Table: named, quoted: b.dialect.Quote(named.Name)}
	if named.Schema != "" {
		t.quoted = b.dialect.Quote(named.Schema) + "." + t.quoted
	}
	err := b.columns(ctx, t)
	if err != nil && b.create && b.kind(err) == database.Fatal {
		statements, failed := b.dialect.Create(ctx, b.db, named)
		for _, statement := range statements {
			if _, failed = b.db.ExecContext(ctx, statement); failed != nil {
				break // perhaps because another one makes them too: then they are there soon
			}
		}
		if err = b.columns(ctx, t); err != nil && failed != nil {
			err = failed
		}
	}
	if err != nil {
		if !b.create && b.kind(err) == database.Fatal {
			err = fmt.Errorf("%w (%s)", err, b.layout.howToMake())
		}
		return nil, fmt.Errorf("table %s: %w", named.Name, err)
	}
	if t.newID, err = b.dialect.NewID(ctx, b.db, named, sequence); err != nil {
		return nil, err
	}
	t.limits, err = b.dialect.Limits(ctx, b.db, named)
	return t, err
}

// columns reads the names of a table's columns. It fails if the table is not there.
func (b *Backend) columns(ctx context.Context, t *table) error {
	rows, err := b.db.QueryContext(ctx, statement("SELECT * FROM ", t.quoted, " WHERE 1 = 0"))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	t.columns = make(map[string]bool, len(names))
	for _, name := range names {
		t.columns[name] = true
	}
	return rows.Err()
}

// Watch is backends.Backend's. The database is asked again and again ([backends.Poller]).
func (b *Backend) Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return b.poller.Watch(ctx, b.layout, ids...)
}

// Close ends the watches with an error and closes the connections. Closing twice does nothing.
func (b *Backend) Close() error {
	b.closed.Store(true)
	b.poller.Close()
	return b.db.Close()
}
