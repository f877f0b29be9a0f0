package sql

import (
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// options are the transport options.
type options struct {
	names, schemas map[string]string
	create         bool

	idle, open int // connections that are kept, and that there may be; open 0: no limit
	lifetime   time.Duration
}

// What holds unless the options say something else.
const (
	maxConnections = 8
	idleTime       = 5 * time.Minute
	lifetime       = time.Hour // pool_recycle of Celery
)

func parseOptions(given map[string]any) (options, error) {
	o := options{create: true, idle: maxConnections, open: maxConnections, lifetime: lifetime}
	for name, v := range given {
		var err error
		switch name {
		case "table_names":
			o.names, err = tableMap(v)
		case "table_schemas":
			o.schemas, err = tableMap(v)
		case "create_tables_at_setup":
			var ok bool
			if o.create, ok = v.(bool); !ok {
				err = fmt.Errorf("%T is not true or false", v)
			}
		case "engine_options":
			err = o.engine(v)
		default:
			return o, fmt.Errorf("transport option %q is unknown for databases; known: create_tables_at_setup, engine_options, table_names, table_schemas", name)
		}
		if err != nil {
			return o, fmt.Errorf("transport option %q: %w", name, err)
		}
	}
	return o, nil
}

// engine reads options of SQLAlchemy's engines, and leaves aside those that mean nothing here. There are up to
// pool_size + max_overflow connections (5 and 10 in SQLAlchemy), of which pool_size are kept; a max_overflow of -1, or a pool_size
// of 0, is no limit. None gets older than pool_recycle seconds; -1 is no limit.
func (o *options) engine(v any) error {
	given, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%T is not a map", v)
	}
	const sqlalchemysSize, sqlalchemysOverflow = 5, 10
	number := func(name string, fallback int64) (n int64, err error) {
		if v, is := given[name]; is {
			if n, is = v.(int64); !is || n < -1 || n > 1<<31 {
				return 0, fmt.Errorf("%q: %v is no whole number from -1 on", name, v)
			}
			return n, nil
		}
		return fallback, nil
	}
	size, err := number("pool_size", sqlalchemysSize)
	overflow, err2 := number("max_overflow", sqlalchemysOverflow)
	recycle, err3 := number("pool_recycle", int64(lifetime/time.Second))
	if err := errors.Join(err, err2, err3); err != nil {
		return err
	}
	_, sized := given["pool_size"]
	_, overflows := given["max_overflow"]
	if sized || overflows {
		o.idle, o.open = int(size), int(size+overflow)
		if size <= 0 || overflow < 0 {
			o.idle, o.open = max(o.idle, maxConnections), 0
		}
	}
	o.lifetime = max(0, time.Duration(recycle)*time.Second) // 0: no limit
	return nil
}

// apply sets up the pool.
func (o *options) apply(db *sql.DB) {
	db.SetMaxOpenConns(o.open)
	db.SetMaxIdleConns(o.idle)
	db.SetConnMaxIdleTime(idleTime)
	db.SetConnMaxLifetime(o.lifetime)
}

// tableMap reads what is given for the tables "task" and "group".
func tableMap(v any) (map[string]string, error) {
	given, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("%T is not a map of \"task\" and \"group\"", v)
	}
	m := map[string]string{}
	for key, v := range given {
		text, ok := v.(string)
		if key != "task" && key != "group" || !ok {
			return nil, fmt.Errorf("%q: %v: expected a name for \"task\" or \"group\"", key, v)
		}
		m[key] = text
	}
	return m, nil
}
