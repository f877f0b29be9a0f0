package django

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/database"
)

// dialect is a kind of database with what is its own in this package.
type dialect struct {
	*database.Dialect
	now   string // milliseconds since 1970, by the database's clock
	lock  string // behind a SELECT of rows that are about to be changed
	at    string // a moment as an argument, where the database does not see its type by itself
	int   string // a whole number, likewise
	text  string // a column of any length
	turns bool   // who writes waits for all who read
	raw   string // before a column of moments that is read as it stands

	// horizon is a number that is at most that of any change which is not visible yet, and since tells the rows whose last change has no
	// smaller one; horizon is "" where there is no such thing.
	horizon string
	since   func(horizon string) string

	zoned      bool           // columns keep instants, not what a clock shows
	djangoZone *time.Location // where Django's clock stands; nil: everything is in UTC
}

func dialectOf(d *database.Dialect, c Config) dialect {
	made := dialect{Dialect: d, at: "%s", int: "CAST(%s AS INTEGER)"}
	if c.Unaware {
		made.djangoZone = c.DjangoZone
	}
	switch d.Names[0] {
	case "postgresql":
		made.now, made.lock, made.text = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)", " FOR UPDATE", "TEXT"
		made.at, made.zoned = "CAST(%s AS TIMESTAMP WITH TIME ZONE)", true
		// The number of the transaction that wrote a row has 32 bits and is compared by its distance from now.
		made.horizon = "CAST(txid_snapshot_xmin(txid_current_snapshot()) % 4294967296 AS TEXT)"
		made.since = func(horizon string) string { return "age(xmin) <= age(CAST('" + horizon + "' AS xid))" }
	case "mysql":
		made.now, made.lock, made.text = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000", " FOR UPDATE", "LONGTEXT CHARACTER SET utf8mb4"
		made.int = "CAST(%s AS SIGNED)"
	default: // SQLite, whose transactions that begin with a change are alone
		made.turns = true
		made.raw = "+" // else the driver tries all forms of dates
		made.now, made.text = "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)", "TEXT"
	}
	return made
}

// arg is an argument of a statement; any other part of one is our own text.
type arg struct{ v any }

// number is an argument, too. One whose value were in the text would make each text another one, which the driver has to ask the
// database about.
type number int64

// statement joins text and arguments.
func (d dialect) statement(parts ...any) (text string, args []any) {
	var b strings.Builder
	for _, p := range parts {
		switch p := p.(type) {
		case arg:
			args = append(args, p.v)
			b.WriteString(d.Placeholder(len(args)))
		case moment:
			args = append(args, p.v)
			fmt.Fprintf(&b, d.at, d.Placeholder(len(args)))
		case number:
			args = append(args, int64(p))
			fmt.Fprintf(&b, d.int, d.Placeholder(len(args)))
		case string:
			b.WriteString(p)
		default:
			panic(fmt.Sprintf("a %T is no part of a statement", p))
		}
	}
	return b.String(), args
}

// list is arguments with commas between them.
func list[T any](values []T) []any {
	var parts []any
	for i, v := range values {
		if i > 0 {
			parts = append(parts, ", ")
		}
		parts = append(parts, arg{v})
	}
	return parts
}

// runner is a database or a transaction.
type runner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// exec runs a statement and tells how many rows it changed.
func (d dialect) exec(ctx context.Context, r runner, parts ...any) (int64, error) {
	text, args := d.statement(parts...)
	result, err := r.ExecContext(ctx, text, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// query calls found for each row, which scans it.
func (d dialect) query(ctx context.Context, r runner, found func(scan func(into ...any) error) error, parts ...any) error {
	text, args := d.statement(parts...)
	rows, err := r.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := found(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// moment is a time as an argument.
type moment struct{ v any }

// time is a moment that a beat or a person has written. Without zones it is UTC, whatever Django's clock shows, because that is
// what Python's beat takes it for. The zero time is NULL.
func (d dialect) time(t time.Time) moment {
	if t.IsZero() {
		return moment{nil}
	}
	if t = t.UTC(); d.zoned && d.djangoZone != nil {
		t = shown(t, d.djangoZone)
	}
	return moment{d.Time(t.UTC())}
}

// stamp is a moment that Django itself writes: by its own clock.
func (d dialect) stamp(t time.Time) moment {
	if t = t.UTC(); !d.zoned && d.djangoZone != nil {
		t = shown(t.In(d.djangoZone), time.UTC)
	}
	return moment{d.Time(t.UTC())}
}

// shown is when a clock in a zone shows what the clock of t does.
func shown(t time.Time, zone *time.Location) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
}

// column is a moment as it is read; zero for NULL. What is no moment is kept, and does not stop the others.
type column struct {
	time.Time
	wrong string
}

// timeForms are those of dates in columns that know no types.
var timeForms = []string{"2006-01-02 15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02T15:04:05.999999999", time.RFC3339Nano}

// Scan is sql.Scanner's. A text without an offset is in UTC.
func (c *column) Scan(v any) error {
	*c = column{}
	switch v := v.(type) {
	case nil:
	case time.Time:
		c.Time = v.UTC()
	case []byte:
		c.parse(string(v))
	case string:
		c.parse(v)
	default:
		c.wrong = fmt.Sprintf("%.40v", v)
	}
	return nil
}

func (c *column) parse(text string) {
	for _, form := range timeForms {
		if t, err := time.Parse(form, text); err == nil {
			c.Time = t.UTC()
			return
		}
	}
	c.wrong = fmt.Sprintf("%.40q", text)
}

// readTime is what was written by time.
func (d dialect) readTime(c column) time.Time {
	if d.zoned && d.djangoZone != nil && !c.IsZero() {
		return shown(c.In(d.djangoZone), time.UTC)
	}
	return c.Time
}

// readStamp is what was written by stamp.
func (d dialect) readStamp(c column) time.Time {
	if !d.zoned && d.djangoZone != nil && !c.IsZero() {
		return shown(c.Time, d.djangoZone).UTC()
	}
	return c.Time
}
