package django

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	_ "github.com/gelery/gelery/backends/sql/mysql"
	_ "github.com/gelery/gelery/backends/sql/postgresql"
	_ "github.com/gelery/gelery/backends/sql/sqlite"
	"github.com/gelery/gelery/internal/database"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take.
const patience = time.Minute

// newTables makes a database with Django's tables and returns its URL.
func newTables(t testing.TB, url string) string {
	t.Helper()
	d, db, err := database.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	schema, err := os.ReadFile(filepath.Join("testdata", d.Names[0]+".sql"))
	if err != nil {
		t.Fatal(err)
	}
	for statement := range strings.SplitSeq(string(schema), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	return url
}

func newSQLite(t testing.TB) string {
	t.Helper()
	return newTables(t, "sqlite:///"+filepath.Join(t.TempDir(), "db.sqlite3"))
}

// lacks are the definitions for which there is no place.
var lacks = []string{"relative", "there", "cron", "ours", "one off", "canvas", "immutable"}

func contract(t *testing.T, newDatabase func(t testing.TB) string) {
	t.Helper()
	storetest.Run(t, func(t *testing.T) func() scheduler.Store {
		url := newTables(t, newDatabase(t))
		return func() scheduler.Store { return open(t, Config{URL: url}) }
	}, lacks...)
}

// open does not close: the contract's tests do.
func open(t testing.TB, c Config) *Store {
	t.Helper()
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func opened(t testing.TB, c Config) *Store {
	t.Helper()
	s := open(t, c)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	contract(t, func(t testing.TB) string { return "sqlite:///" + filepath.Join(t.TempDir(), "db.sqlite3") })
}

func TestPostgreSQL(t *testing.T) {
	t.Parallel()
	server := testservice.StartPostgreSQL(t)
	t.Run("Contract", func(t *testing.T) { contract(t, server.NewDatabase) })
	t.Run("Rows", func(t *testing.T) { testRows(t, newTables(t, server.NewDatabase(t))) })
	t.Run("Account", func(t *testing.T) {
		url := newTables(t, server.NewDatabase(t))
		server.Execute(t, "CREATE ROLE reader LOGIN IN ROLE pg_read_all_data")
		_, err := Open(t.Context(), Config{URL: strings.Replace(url, "gelery@", "reader@", 1)})
		if err == nil || !strings.Contains(err.Error(), "CREATE TABLE gelery_beat (") || !strings.Contains(err.Error(), "CREATE TABLE gelery_beat_pending (") {
			t.Errorf("an account that may not make tables: %v", err)
		}
	})
}

func TestMariaDB(t *testing.T) {
	t.Parallel()
	server := testservice.StartMariaDB(t)
	t.Run("Contract", func(t *testing.T) { contract(t, server.NewDatabase) })
	t.Run("Rows", func(t *testing.T) { testRows(t, newTables(t, server.NewDatabase(t))) })
}

func TestRows(t *testing.T) {
	t.Parallel()
	testRows(t, newSQLite(t))
}

// execute changes rows as somebody else would.
func execute(t testing.TB, s *Store, parts ...any) {
	t.Helper()
	if _, err := s.dialect.exec(t.Context(), s.db, parts...); err != nil {
		t.Fatal(err)
	}
}

// lead is the lease of a store, given back at the end of the test.
func lead(t testing.TB, s *Store) *lease {
	t.Helper()
	l, err := s.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := l.Release(ctx); err != nil {
			t.Error(err)
		}
	})
	return l.(*lease)
}

func put(t testing.TB, s *Store, name, text string) {
	t.Helper()
	if err := s.Put(t.Context(), storetest.Entry(t, name, text)); err != nil {
		t.Fatal(err)
	}
}

// testRows is what only this store has: rows that end, rows that are wrong, rows that others have run.
func testRows(t *testing.T, url string) {
	s := opened(t, Config{URL: url})
	put(t, s, "good", `{task: a, schedule: 60}`)
	put(t, s, "wrong args", `{task: a, schedule: 60}`)
	put(t, s, "wrong zone", `{task: a, schedule: "1 2 3 4 *", timezone: Asia/Tokyo}`)
	put(t, s, "ended", `{task: a, schedule: 60, end: 2100-01-01}`)
	put(t, s, "once", `{task: a, schedule: 60, one_off: true}`)
	execute(t, s, "UPDATE ", taskTable, " SET args = '{', date_changed = ", s.dialect.stamp(time.Now()), " WHERE name = 'wrong args'")
	execute(t, s, "UPDATE ", crontabTable, " SET timezone = 'Mars/Base' WHERE timezone = 'Asia/Tokyo'")
	execute(t, s, "UPDATE ", taskTable, " SET total_run_count = 1, last_run_at = ", s.dialect.time(time.Now()), " WHERE name = 'once'") // by Python
	l := lead(t, s)
	now := time.Now().UTC().Truncate(time.Second).Add(2 * time.Minute)
	due, _, err := l.Due(t.Context(), now, 10)
	if err != nil || len(due) != 2 {
		t.Fatalf("due: %v, %v", due, err)
	}
	if row := find(t, s, "once"); row.enabled || row.count != 0 || !row.lastRunAt.IsZero() {
		t.Errorf("what Python has run once is not disabled: %+v", row)
	}
	wrong := map[string]error{}
	for r, err := range s.Entries(t.Context()) {
		if err != nil {
			wrong[strings.SplitN(err.Error(), ":", 3)[1]] = err
		} else if r.Source != "django" || r.Fixed {
			t.Errorf("a record: %+v", r)
		}
	}
	if len(wrong) != 2 || wrong[" args"] == nil || wrong[" schedule"] == nil {
		t.Errorf("wrong: %v", wrong)
	}

	// One that Python has run meanwhile is not run again, and keeps the others back for no longer than this.
	var marks []scheduler.Mark
	for _, r := range due {
		marks = append(marks, scheduler.Mark{Entry: r.Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: 1}, Next: now.Add(time.Minute)})
	}
	execute(t, s, "UPDATE ", taskTable, " SET total_run_count = 7, last_run_at = ", s.dialect.time(now), " WHERE name = 'good'")
	if err := l.Mark(t.Context(), marks); err != scheduler.ErrChanged { //nolint:errorlint // it is that one
		t.Errorf("marked what Python has run: %v", err)
	}
	due, _, err = l.Due(t.Context(), now, 10)
	if err != nil || len(due) != 1 || due[0].Entry.Name != "ended" {
		t.Errorf("due after Python's run: %v, %v", due, err)
	}

	end := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	due, _, err = l.Due(t.Context(), end, 10)
	if err != nil || len(due) != 1 || due[0].Entry.Name != "good" {
		t.Errorf("due at the end: %v, %v", due, err)
	}
	if row := find(t, s, "ended"); row.enabled || !row.lastRunAt.IsZero() {
		t.Errorf("what has ended is not disabled: %+v", row)
	}
	mark := scheduler.Mark{Entry: due[0].Entry, State: scheduler.State{LastRunAt: end, TotalRunCount: 8}, Next: end.Add(time.Minute)}
	if err := l.Mark(t.Context(), []scheduler.Mark{mark}); err != nil {
		t.Fatal(err)
	}
	row := find(t, s, "good")
	if !row.lastRunAt.Equal(end) || row.count != 8 || !row.enabled {
		t.Errorf("after a run: %+v", row)
	}
	// Somebody saves the row who has read it before that run.
	execute(t, s, "UPDATE ", taskTable, " SET args = '[1]', total_run_count = 7, last_run_at = ", s.dialect.time(now), ", date_changed = ", s.dialect.stamp(end),
		" WHERE name = 'good'")
	mark.State, mark.Next = scheduler.State{LastRunAt: end.Add(time.Minute), TotalRunCount: 9}, end.Add(2*time.Minute)
	if err := l.Mark(t.Context(), []scheduler.Mark{mark}); err != scheduler.ErrChanged { //nolint:errorlint // it is that one
		t.Errorf("marked what was changed: %v", err)
	}
	due, _, err = l.Due(t.Context(), end.Add(time.Minute), 10)
	if err != nil || len(due) != 1 || due[0].State != (scheduler.State{LastRunAt: end, TotalRunCount: 8}) {
		t.Fatalf("due after the change: %v, %v", due, err)
	}
	mark.Entry = due[0].Entry
	if err := l.Mark(t.Context(), []scheduler.Mark{mark}); err != nil {
		t.Fatal(err)
	}
	if row := find(t, s, "good"); row.count != 9 || row.args != "[1]" {
		t.Errorf("after another run: %+v", row)
	}
}

func find(t testing.TB, s *Store, name string) *taskRow {
	t.Helper()
	row, err := s.find(t.Context(), s.db, name, "")
	if err != nil || row == nil {
		t.Fatalf("row %s: %v, %v", name, row, err)
	}
	return row
}

// A beat that was frozen while another one led changes nothing, and learns that it has lost its lease.
func TestFencing(t *testing.T) {
	t.Parallel()
	s := opened(t, Config{URL: newSQLite(t)})
	put(t, s, "e", `{task: a, schedule: 60}`)
	l := lead(t, s)
	now := time.Now().UTC().Truncate(time.Second).Add(2 * time.Minute)
	due, _, err := l.Due(t.Context(), now, 1)
	if err != nil || len(due) != 1 {
		t.Fatalf("due: %v, %v", due, err)
	}
	execute(t, s, "UPDATE ", leaseTable, " SET fence = fence + 1, owner = 'another'")
	mark := scheduler.Mark{Entry: due[0].Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: 1}, Next: now.Add(time.Minute)}
	if err := l.Mark(t.Context(), []scheduler.Mark{mark}); !errors.Is(err, scheduler.ErrNotLeading) {
		t.Errorf("marked without the lease: %v", err)
	}
	select {
	case <-l.Lost():
	case <-time.After(patience):
		t.Error("the lease is not lost")
	}
	if row := find(t, s, "e"); row.count != 0 || !row.lastRunAt.IsZero() {
		t.Errorf("a mark without the lease has changed the row: %+v", row)
	}
}

// With USE_TZ off times go into the tables and come out of them as Django's and Celery's clocks show them.
func TestUnaware(t *testing.T) {
	t.Parallel()
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct{ time, stamp time.Time }{
		"sqlite":     {at, at.Add(2 * time.Hour)}, // the clock of Django shows 14:00
		"postgresql": {at.Add(-2 * time.Hour), at},
	} {
		d := dialectOf(&database.Dialect{Names: []string{name}, Time: func(t time.Time) any { return t }}, Config{Unaware: true, DjangoZone: berlin})
		if got := d.time(at).v.(time.Time); !got.Equal(tt.time) || !d.readTime(column{Time: got}).Equal(at) {
			t.Errorf("%s: a beat's time is %v, not %v", name, got, tt.time)
		}
		if got := d.stamp(at).v.(time.Time); !got.Equal(tt.stamp) || !d.readStamp(column{Time: got}).Equal(at) {
			t.Errorf("%s: Django's time is %v, not %v", name, got, tt.stamp)
		}
	}
	s := opened(t, Config{URL: newSQLite(t), Unaware: true, Zone: berlin})
	put(t, s, "e", `{task: a, schedule: "0 12 * * *", timezone: Europe/Berlin}`)
	var of *scheduler.EntryError
	if err := s.Put(t.Context(), storetest.Entry(t, "f", `{task: a, schedule: "0 12 * * *"}`)); !errors.As(err, &of) || of.Field != "schedule" {
		t.Errorf("a crontab of another zone: %v", err)
	}
}

// What the configuration has is stored when a beat begins to lead, and a row that was disabled stays so.
func TestStatic(t *testing.T) {
	t.Parallel()
	url := newSQLite(t)
	static := []*scheduler.Entry{storetest.Entry(t, "a", `{task: new, schedule: 60}`), storetest.Entry(t, "b", `{task: b, schedule: {cron: "@daily"}}`),
		storetest.Entry(t, "c", `{task: c, schedule: 60}`)}
	s := opened(t, Config{URL: url, Static: static})
	put(t, s, "a", `{task: old, schedule: 60, enabled: false}`)
	lead(t, s)
	if row := find(t, s, "a"); row.enabled || row.task != "new" {
		t.Errorf("a row that was there: %+v", row)
	}
	if row := find(t, s, "c"); !row.enabled || row.task != "c" {
		t.Errorf("a new row: %+v", row)
	}
	if row, err := s.find(t.Context(), s.db, "b", ""); row != nil || err != nil {
		t.Errorf("what cannot be stored: %+v, %v", row, err)
	}
}
