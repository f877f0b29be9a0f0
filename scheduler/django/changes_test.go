package django

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/storetest"
)

// consistent fails the test if what is known of the rows contradicts itself, or is not what is wanted: tasks by names of entries.
func consistent(t *testing.T, l *lease, want map[string]string) {
	t.Helper()
	if got := tasksOf(l); !maps.Equal(got, want) {
		t.Errorf("entries: %v, want %v", got, want)
	}
	if len(l.read.rows) != len(want) || len(l.read.names) != len(want) {
		t.Errorf("known: %d rows, %d ids, want %d", len(l.read.rows), len(l.read.names), len(want))
	}
	for name, r := range l.read.rows {
		if row := find(t, l.Store, name); row.id != r.id || row.state != r.known() {
			t.Errorf("%s is row %d with %+v, and is known as row %d with %+v", name, row.id, row.state, r.id, r.known())
		}
		if r.name != name || l.read.names[r.id] != name {
			t.Errorf("row %d is known as %q, and is called %q; its id leads to %q", r.id, name, r.name, l.read.names[r.id])
		}
	}
}

// marksOf are marks as of one run each.
func marksOf(due []scheduler.Record, now time.Time) []scheduler.Mark {
	var marks []scheduler.Mark
	for _, r := range due {
		marks = append(marks, scheduler.Mark{Entry: r.Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: r.State.TotalRunCount + 1}, Next: now.Add(time.Minute)})
	}
	return marks
}

// Names change hands, by one transaction or several, between two looks at the tables; whatever finds it out, no entry gets lost by it.
func TestNames(t *testing.T) {
	t.Parallel()
	rename := func(from, to string) string { return " SET name = '" + to + "' WHERE name = '" + from + "'" }
	changes := map[string]struct {
		updates []string
		deleted string
		put     string
		want    map[string]string
	}{
		"renamed":    {updates: []string{rename("a", "d")}, want: map[string]string{"d": "of.a", "b": "of.b", "c": "of.c"}},
		"swapped":    {updates: []string{rename("a", "x"), rename("b", "a"), rename("x", "b")}, want: map[string]string{"a": "of.b", "b": "of.a", "c": "of.c"}},
		"moved on":   {updates: []string{rename("c", "old"), rename("b", "c")}, want: map[string]string{"a": "of.a", "c": "of.b", "old": "of.c"}},
		"from one":   {updates: []string{" SET name = 'x', enabled = FALSE WHERE name = 'a'", rename("b", "a")}, want: map[string]string{"a": "of.b", "c": "of.c"}},
		"deleted":    {deleted: "b", want: map[string]string{"a": "of.a", "c": "of.c"}},
		"made again": {deleted: "b", put: "b", want: map[string]string{"a": "of.a", "b": "new", "c": "of.c"}},
		"given away": {deleted: "a", updates: []string{rename("b", "a")}, put: "b", want: map[string]string{"a": "of.b", "b": "new", "c": "of.c"}},
	}
	postgresql := testservice.StartPostgreSQL(t)
	for database, url := range map[string]func() string{
		"sqlite": func() string { return newSQLite(t) }, "postgresql": func() string { return newTables(t, postgresql.NewDatabase(t)) },
	} {
		for name, change := range changes {
			for _, by := range []string{"new rows", "all rows", "mark", "anew"} {
				if database == "sqlite" && by == "new rows" { // which it cannot tell
					continue
				}
				t.Run(database+"/"+name+"/"+by, func(t *testing.T) {
					s := opened(t, Config{URL: url()})
					now := time.Now().UTC().Truncate(time.Second).Add(2 * time.Minute)
					for i, name := range []string{"a", "b", "c"} {
						put(t, s, name, `{task: of.`+name+`, schedule: 60}`)
						execute(t, s, "UPDATE ", taskTable, " SET total_run_count = ", arg{5 - i}, ", last_run_at = ",
							s.dialect.time(now.Add(time.Duration(-1-i)*time.Minute)), " WHERE name = ", arg{name})
					}
					l := lead(t, s)
					due, _, err := l.Due(t.Context(), now, 10)
					if err != nil || len(due) != 3 {
						t.Fatalf("due: %v, %v", due, err)
					}
					if change.deleted != "" {
						execute(t, s, "DELETE FROM ", taskTable, " WHERE name = ", arg{change.deleted})
					}
					for _, update := range change.updates {
						execute(t, s, "UPDATE ", taskTable, update)
					}
					if change.put != "" {
						put(t, s, change.put, `{task: new, schedule: 60}`)
					}
					if _, _, err := s.touch(t.Context(), s.db, time.Now()); err != nil {
						t.Fatal(err)
					}
					switch by {
					case "new rows":
						scanned(t, l, scanNew)
					case "all rows":
						scanned(t, l, scanAll)
					case "mark":
						execute(t, s, "UPDATE ", taskTable, " SET total_run_count = 7, last_run_at = ", s.dialect.time(now))
						if err := l.Mark(t.Context(), marksOf(due, now)); !errors.Is(err, scheduler.ErrChanged) {
							t.Fatalf("marked what was changed: %v", err)
						}
						if _, _, err := l.Due(t.Context(), now.Add(3*pollInterval), 10); err != nil {
							t.Fatal(err)
						}
					case "anew":
						l.read.stale = true
						if _, _, err := l.Due(t.Context(), now, 10); err != nil {
							t.Fatal(err)
						}
					}
					if l.read.stale {
						t.Error("what is known is given up")
					}
					consistent(t, l, change.want)
				})
			}
		}
	}
}

// The pages of a scan are read one after the other: what it finds may never have been there at one time. That is looked at again.
func TestNamesReadAtTwoTimes(t *testing.T) {
	t.Parallel()
	s := opened(t, Config{URL: newSQLite(t)})
	for _, name := range []string{"a", "b"} {
		put(t, s, name, `{task: of.`+name+`, schedule: 60}`)
	}
	l := lead(t, s)
	now := time.Now()
	if _, _, err := l.Due(t.Context(), now, 10); err != nil {
		t.Fatal(err)
	}
	l.begin(scanAll, l.read.marker)
	<-l.read.scan.ended
	row := *l.read.rows["b"] // as after a swap that was between the pages
	row.name = "a"
	l.read.scan.found.rows = []*taskRow{&row}
	if err := l.await(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Due(t.Context(), now.Add(3*pollInterval), 10); err != nil {
		t.Fatal(err)
	}
	consistent(t, l, map[string]string{"a": "of.a", "b": "of.b"})
}

// An entry that ends while a scan is under way is no reason for another one.
func TestScanBesideAnEnd(t *testing.T) {
	t.Parallel()
	for name, touched := range map[string]bool{"after a change": true, "from time to time": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := opened(t, Config{URL: newSQLite(t)})
			put(t, s, "once", `{task: a, schedule: 60, one_off: true}`)
			l := lead(t, s)
			now := time.Now().UTC().Truncate(time.Second).Add(2 * time.Minute)
			due, _, err := l.Due(t.Context(), now, 10)
			if err != nil || len(due) != 1 {
				t.Fatalf("due: %v, %v", due, err)
			}
			marker := l.read.marker
			if touched {
				if _, marker, err = s.touch(t.Context(), s.db, time.Now()); err != nil {
					t.Fatal(err)
				}
			}
			l.begin(scanAll, marker)
			marks := marksOf(due, now)
			marks[0].Pause = true
			if err := l.Mark(t.Context(), marks); err != nil {
				t.Fatal(err)
			}
			if err := l.await(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			if _, _, err := l.Due(t.Context(), now.Add(pollInterval), 10); err != nil {
				t.Fatal(err)
			}
			if l.read.scan != nil {
				t.Error("all is read again, and nobody else has changed anything")
			}
			// Who changes something then is heard.
			put(t, s, "new", `{task: b, schedule: 60}`)
			if _, _, err := l.Due(t.Context(), now.Add(4*pollInterval), 10); err != nil {
				t.Fatal(err)
			}
			consistent(t, l, map[string]string{"new": "b"})
		})
	}
}

// A scan whose findings nobody will want ends at once, and leaves its connection to others.
func TestLoadEndsScan(t *testing.T) {
	t.Parallel()
	l := lead(t, opened(t, Config{URL: newSQLite(t)}))
	if _, _, err := l.Due(t.Context(), time.Now(), 1); err != nil {
		t.Fatal(err)
	}
	cancelled := false
	l.read.scan, l.read.stale = &scan{ended: make(chan struct{}), cancel: func() { cancelled = true }}, true
	if _, _, err := l.Due(t.Context(), time.Now(), 1); err != nil {
		t.Fatal(err)
	}
	if !cancelled || l.read.scan != nil {
		t.Error("the scan goes on beside what reads all rows")
	}
}

// Of many rows that were changed together a mark finds out all at once, in however many statements it reads them.
func TestManyChangedRows(t *testing.T) {
	t.Parallel()
	for _, n := range []int{2*chunk + 1, mostReread + 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := opened(t, Config{URL: newSQLite(t)})
			entries := make([]*scheduler.Entry, n)
			for i := range entries {
				entries[i] = storetest.Entry(t, fmt.Sprint("e", i), `{task: a, schedule: 60}`)
			}
			if err := s.Put(t.Context(), entries...); err != nil {
				t.Fatal(err)
			}
			l := lead(t, s)
			now := time.Now().UTC().Truncate(time.Second).Add(2 * time.Minute)
			due, _, err := l.Due(t.Context(), now, n)
			if err != nil || len(due) != n {
				t.Fatalf("due: %d, %v", len(due), err)
			}
			execute(t, s, "UPDATE ", taskTable, " SET task = 'new', date_changed = ", s.dialect.stamp(time.Now().Add(time.Second)))
			if err := l.Mark(t.Context(), marksOf(due, now)); !errors.Is(err, scheduler.ErrChanged) {
				t.Fatalf("marked what was changed: %v", err)
			}
			due, _, err = l.Due(t.Context(), now, n)
			if err != nil || len(due) != n || slices.ContainsFunc(due, func(r scheduler.Record) bool { return r.Entry.Task.Name() != "new" }) {
				t.Fatalf("due after the change: %d, %v", len(due), err)
			}
			if err := l.Mark(t.Context(), marksOf(due, now)); err != nil {
				t.Errorf("marked as they are: %v", err)
			}
		})
	}
}
