// Package django is django-celery-beat's store of a schedule: the tables that Django makes, and that its admin pages show and
// change. Python's beat with DatabaseScheduler and Gelery's take over from each other; not both at once, because Python's knows no
// lock. Beats of Gelery do know each other, by a table of their own, gelery_beat, and of one that was killed nothing is lost:
// gelery_beat_pending has what it marked and did not report. Both are made where they are missing.
//
// The package of the database must be imported:
//
//	import _ "github.com/gelery/gelery/backends/sql/postgresql" // postgresql://user:password@host/database
//	import _ "github.com/gelery/gelery/backends/sql/mysql"      // mysql://…, mariadb://…
//	import _ "github.com/gelery/gelery/backends/sql/sqlite"     // sqlite:////path/db.sqlite3
//
// Rows have no place for jitter, missed, cron lines, workflows and what else only Gelery has: Put refuses those.
package django

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gelery/gelery/internal/database"
	"github.com/gelery/gelery/internal/retry"
	"github.com/gelery/gelery/scheduler"
)

// Config says where the tables are and how Django reads them. Only URL is needed.
type Config struct {
	URL string // of the database, as of a result backend without "db+": postgresql://user:password@host/database

	// Unaware: Django has USE_TZ and DJANGO_CELERY_BEAT_TZ_AWARE off, which belong together. Then every time in the tables is
	// taken for UTC, and all crontabs go by Zone whatever their rows say: what Python's beat does then.
	Unaware bool
	// Zone is Celery's timezone, with Unaware. nil: UTC.
	Zone *time.Location
	// DjangoZone is Django's TIME_ZONE, with Unaware and PostgreSQL, whose columns know zones. nil: UTC.
	DjangoZone *time.Location

	// Static are the entries of beat_schedule: whoever begins to lead stores them, as Python's beat does. Those that are no longer
	// among them stay in the tables. One that cannot be stored is logged.
	Static []*scheduler.Entry

	// KeepExpired: a run of a row that has neither expires nor expire_seconds gets none; see scheduler.Entry.
	KeepExpired bool
	// Deadline is how late a crontab is still sent; 0: however late. Celery's beat_cron_starting_deadline.
	Deadline time.Duration

	Logger *slog.Logger // nil: slog's default
}

// Store is a schedule in a database of Django.
type Store struct {
	config  Config
	log     *slog.Logger
	db      *sql.DB
	dialect dialect
	policy  retry.Policy
	change  chan struct{} // capacity 1
	turn    chan struct{} // capacity 1: whoever has put something in has its turn; nil: all have
}

// Open connects to the database and makes Gelery's tables if they are not there. It tries until the database answers or ctx is
// done. Django's tables must be there, as of django-celery-beat 2.2 on.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Deadline < 0 {
		return nil, errors.New("django: Deadline (beat_cron_starting_deadline) is negative")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	for _, zone := range []**time.Location{&c.Zone, &c.DjangoZone} {
		if *zone == nil {
			*zone = time.UTC
		}
	}
	d, db, err := database.Open(c.URL)
	if err != nil {
		return nil, fmt.Errorf("django: %w", err)
	}
	db.SetMaxOpenConns(maxConnections)
	db.SetMaxIdleConns(maxConnections)
	db.SetConnMaxLifetime(time.Hour)
	s := &Store{config: c, log: c.Logger, db: db, dialect: dialectOf(d, c), change: make(chan struct{}, 1)}
	if s.dialect.turns {
		s.turn = make(chan struct{}, 1)
	}
	s.policy = retry.Policy{Server: "the database", Again: s.again}
	if err := s.policy.Do(ctx, s.log, "connect to Django's database", s.prepare); err != nil {
		return nil, errors.Join(fmt.Errorf("django: %w", err), db.Close())
	}
	return s, nil
}

// inTurn lets marks and the pages of a scan come one after the other where the database lets nobody write while it is read: SQLite itself
// waits by sleeping, longer each time.
func (s *Store) inTurn(ctx context.Context, do func() error) error {
	if s.turn == nil {
		return do()
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// maxConnections are those of one store: the beat asks one question at a time, and the lease is renewed beside it.
const maxConnections = 4

// finalError is an error of our own, which does not end with time: what a database has not said looks as if it were away.
type finalError struct{ error }

func (e finalError) Unwrap() error { return e.error }

// again tells which errors end with time.
func (s *Store) again(err error) bool {
	var final finalError
	var entry *scheduler.EntryError
	if errors.As(err, &final) || errors.As(err, &entry) || errors.Is(err, scheduler.ErrNoEntry) {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || s.dialect.Kind(err).Again()
}

// Close is [scheduler.Store]'s.
func (s *Store) Close() error { return s.db.Close() }
