package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	_ "github.com/gelery/gelery/backends/sql/postgresql"
	_ "github.com/gelery/gelery/backends/sql/sqlite"
	"github.com/gelery/gelery/internal/database"
	"github.com/gelery/gelery/internal/databaseserver"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/django"
)

// inDjango is a database with the tables of django-celery-beat.
type inDjango struct {
	dir        string
	postgresql *databaseserver.Server // nil: SQLite
	url        string
	db         *sql.DB
	entries    int
}

func newSQLite(_ context.Context, dir string) (place, error) { return &inDjango{dir: dir}, nil }

func newPostgreSQL(ctx context.Context, dir string) (place, error) {
	program := databaseserver.FindPostgreSQL()
	if program == "" {
		return nil, errors.New("there is no PostgreSQL on the PATH")
	}
	server, err := databaseserver.PostgreSQL(ctx, program)
	return &inDjango{dir: dir, postgresql: server}, err
}

// schedules is how many rows of crontabs and intervals the entries share.
const schedules = 100

func (p *inDjango) fill(ctx context.Context, t *trial) (err error) {
	p.url, p.entries = "sqlite:///"+filepath.Join(p.dir, t.name+".sqlite3"), t.entries
	if p.postgresql != nil {
		if p.url, err = p.postgresql.NewDatabase(ctx); err != nil {
			return err
		}
	}
	if p.db != nil {
		_ = p.db.Close()
	}
	d, db, err := database.Open(p.url)
	if err != nil {
		return err
	}
	p.db = db
	_, file, _, _ := runtime.Caller(0)
	tables, err := os.ReadFile(filepath.Join(filepath.Dir(file), "../../../scheduler/django/testdata", d.Names[0]+".sql"))
	if err != nil {
		return err
	}
	statements := strings.Split(string(tables), ";\n")
	for range schedules {
		statements = append(statements, "INSERT INTO django_celery_beat_crontabschedule (minute, hour, day_of_week, day_of_month, month_of_year, timezone)"+
			" VALUES ('0', '0', '*', '29', '2', 'Europe/Berlin')",
			fmt.Sprintf("INSERT INTO django_celery_beat_intervalschedule (every, period) VALUES (%d, 'seconds')", max(1, t.every)))
	}
	const form = "2006-01-02 15:04:05.000000+00:00"
	now := time.Now().UTC().Format(form)
	statements = append(statements, "INSERT INTO django_celery_beat_periodictasks (ident, last_update) VALUES (1, '"+now+"')")
	for first := 0; first < t.entries; first += 500 {
		var b strings.Builder
		b.WriteString("INSERT INTO django_celery_beat_periodictask (name, task, args, kwargs, headers, description, enabled, one_off, total_run_count," +
			" crontab_id, interval_id, last_run_at, date_changed) VALUES ")
		for i := first; i < min(first+500, t.entries); i++ {
			crontab, interval := "NULL", "NULL"
			if id := fmt.Sprint(1 + i%schedules); t.every > 0 {
				interval = id
			} else {
				crontab = id
			}
			if i > first {
				b.WriteString(", ")
			}
			fmt.Fprintf(&b, "('%s', 'bench.one', '[%d]', '{}', '{}', '', TRUE, FALSE, 1, %s, %s, '%s', '%s')", entryName(i), i, crontab, interval, t.last(i).Format(form), now)
		}
		statements = append(statements, b.String())
	}
	if p.postgresql != nil {
		statements = append(statements, "ANALYZE")
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // nothing, after the commit
	for _, s := range statements {
		if strings.TrimSpace(s) == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("%.100s: %w", s, err)
		}
	}
	return tx.Commit()
}

func (p *inDjango) open(ctx context.Context, log *slog.Logger) (scheduler.Store, error) {
	return django.Open(ctx, django.Config{URL: p.url, Logger: log})
}

// changes are what Django's save does, and its queryset.update followed by PeriodicTasks.update_changed.
func (p *inDjango) changes() map[string]func(ctx context.Context, n int) error {
	change := func(stamped string) func(ctx context.Context, n int) error {
		return func(ctx context.Context, n int) error {
			set := fmt.Sprintf("args = '[%d]'", n+1_000_000)
			now := time.Now().UTC().Format("2006-01-02 15:04:05.000000+00:00")
			if stamped != "" {
				set += fmt.Sprintf(", %s = '%s'", stamped, now)
			}
			_, err := p.db.ExecContext(ctx, fmt.Sprintf("UPDATE django_celery_beat_periodictask SET %s WHERE id = %d", set, 1+n*37%p.entries))
			if err == nil {
				_, err = p.db.ExecContext(ctx, "UPDATE django_celery_beat_periodictasks SET last_update = '"+now+"' WHERE ident = 1")
			}
			return err
		}
	}
	return map[string]func(context.Context, int) error{"saved": change("date_changed"), "updated": change("")}
}

func (p *inDjango) server() (string, int) {
	if p.postgresql == nil {
		return "", 0
	}
	return "postgres", p.postgresql.Pid()
}

func (p *inDjango) close() (err error) {
	if p.db != nil {
		err = p.db.Close()
	}
	if p.postgresql != nil {
		err = errors.Join(err, p.postgresql.Stop())
	}
	return err
}
