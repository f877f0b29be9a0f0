// Package database opens databases that speak SQL by the scheme of a URL, for rooms that do not know which there are. The
// packages below backends/sql bring them.
package database

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/registry"
)

// Dialect is one kind of database: what is its own in connecting, in SQL and in errors.
type Dialect struct {
	// Names are SQLAlchemy's in URLs, "postgresql" and "postgresql+psycopg2". The first one names the kind.
	Names []string

	// Connect opens a pool without connecting.
	Connect func(u brokerurl.URL) (*sql.DB, error)

	// Placeholder is the n-th argument, from 1 on.
	Placeholder func(n int) string
	// Quote makes an identifier of a name.
	Quote func(name string) string
	// Time is a date in UTC as the database's columns take it.
	Time func(t time.Time) any

	// Kind sorts an error.
	Kind func(err error) Kind
}

// Kind says what an error of a database calls for.
type Kind int

const (
	Fatal       Kind = iota // asking again will not help
	Unavailable             // the database is away, busy or full: ask again
	Raced                   // another writer came in between: ask again at once
	Unfit                   // a value does not fit its column
)

// Again tells whether asking again may help.
func (k Kind) Again() bool { return k == Unavailable || k == Raced }

var dialects = registry.New[*Dialect]("database", "database", "postgresql://user:password@host/database")

// Register makes a kind of database known under its names.
func Register(d *Dialect) { dialects.Register(d, d.Names...) }

// Open is the kind of a URL's database, and a pool that has not connected yet. Errors show no password.
func Open(url string) (*Dialect, *sql.DB, error) {
	urls, err := brokerurl.Parse(url)
	if err == nil && len(urls) > 1 {
		err = errors.New("a database is one URL, not a list")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("database: %w", err)
	}
	d, err := dialects.Find(url)
	if err != nil {
		return nil, nil, err
	}
	db, err := d.Connect(urls[0])
	if err != nil {
		return nil, nil, fmt.Errorf("database: %w", err)
	}
	return d, db, nil
}
