package django

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
)

// databases make one that tells which rows are new, and one that does not.
func databases(t testing.TB) map[string]func() string {
	return map[string]func() string{
		"SQLite":     func() string { return newSQLite(t) },
		"PostgreSQL": func() string { return newTables(t, testservice.StartPostgreSQL(t).NewDatabase(t)) },
	}
}

// scanned lets a scan run whose marker was just moved, and takes over what it finds.
func scanned(t *testing.T, l *lease, kind scanKind) {
	t.Helper()
	marker, err := l.marker(t.Context(), l.db, "")
	if err != nil {
		t.Fatal(err)
	}
	l.begin(kind, marker)
	if err := l.await(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// tasksOf are the tasks of the entries by their names, as the beat knows them.
func tasksOf(l *lease) map[string]string {
	all := map[string]string{}
	for r := range l.read.table.All() {
		all[r.Entry.Name] = r.Entry.Task.Name()
	}
	return all
}

// What others change is found, in whatever way they change it: with Django's queryset.update neither date_changed moves nor anything else
// but what was changed.
func TestScan(t *testing.T) {
	t.Parallel()
	for name, url := range databases(t) {
		t.Run(name, func(t *testing.T) {
			s := opened(t, Config{URL: url()})
			for _, name := range []string{"same", "updated", "renamed", "disabled", "deleted", "slower"} {
				put(t, s, name, `{task: old, schedule: 60}`)
			}
			put(t, s, "slower", `{task: old, schedule: 90}`)
			l := lead(t, s)
			if _, _, err := l.Due(t.Context(), time.Now(), 1); err != nil {
				t.Fatal(err)
			}
			same, _ := l.read.table.Get("same")
			for _, change := range []string{
				" SET task = 'new' WHERE name = 'updated'", " SET name = 'other' WHERE name = 'renamed'", " SET enabled = FALSE WHERE name = 'disabled'",
			} {
				execute(t, s, "UPDATE ", taskTable, change)
			}
			execute(t, s, "DELETE FROM ", taskTable, " WHERE name = 'deleted'")
			execute(t, s, "UPDATE ", intervalTable, " SET every = 7200 WHERE every = 90")
			put(t, s, "added", `{task: old, schedule: 45}`)
			scanned(t, l, scanNew)
			want := map[string]string{"same": "old", "updated": "new", "other": "old", "slower": "old", "added": "old"}
			if got := tasksOf(l); !maps.Equal(got, want) {
				t.Errorf("entries: %v, want %v", got, want)
			}
			due, _, err := l.Due(t.Context(), time.Now().Add(2*time.Minute), 10)
			if err != nil || len(due) != 4 || slices.ContainsFunc(due, func(r scheduler.Record) bool { return r.Entry.Name == "slower" }) {
				t.Errorf("due: %v, %v", due, err)
			}
			if again, _ := l.read.table.Get("same"); again.Entry != same.Entry {
				t.Error("an entry that nobody has changed is another one")
			}
			if len(l.read.rows) != len(want) || len(l.read.names) != len(want) {
				t.Errorf("known: %d rows, %d ids", len(l.read.rows), len(l.read.names))
			}
		})
	}
}

// What the beat does while a scan is under way is not undone by what that has read before.
func TestScanBesideMarks(t *testing.T) {
	t.Parallel()
	for name, url := range databases(t) {
		t.Run(name, func(t *testing.T) {
			s := opened(t, Config{URL: url()})
			for _, name := range []string{"marked", "once", "changed"} {
				put(t, s, name, `{task: old, schedule: 60, one_off: `+map[bool]string{true: "true", false: "false"}[name == "once"]+`}`)
			}
			l := lead(t, s)
			now := time.Now().UTC().Truncate(time.Second).Add(61 * time.Second)
			due, _, err := l.Due(t.Context(), now, 10)
			if err != nil || len(due) != 3 {
				t.Fatalf("due: %v, %v", due, err)
			}
			execute(t, s, "UPDATE ", taskTable, " SET task = 'new'")
			marker, err := l.marker(t.Context(), l.db, "")
			if err != nil {
				t.Fatal(err)
			}
			l.begin(scanNew, marker)
			<-l.read.scan.ended
			var marks []scheduler.Mark
			for _, r := range due {
				if r.Entry.Name != "changed" {
					marks = append(marks, scheduler.Mark{Entry: r.Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: 1}, Next: now.Add(time.Minute), Pause: r.Entry.Name == "once"})
				}
			}
			if err := l.Mark(t.Context(), marks); err != nil {
				t.Fatal(err)
			}
			// This one is found out by its mark.
			execute(t, s, "UPDATE ", taskTable, " SET task = 'newest', total_run_count = 5 WHERE name = 'changed'")
			i := slices.IndexFunc(due, func(r scheduler.Record) bool { return r.Entry.Name == "changed" })
			mark := scheduler.Mark{Entry: due[i].Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: 1}, Next: now.Add(time.Minute)}
			if err := l.Mark(t.Context(), []scheduler.Mark{mark}); err != scheduler.ErrChanged { //nolint:errorlint // it is that one
				t.Fatalf("marked what was changed: %v", err)
			}
			horizon := l.read.horizon
			if err := l.await(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			if got, want := tasksOf(l), map[string]string{"marked": "new", "changed": "newest"}; !maps.Equal(got, want) {
				t.Errorf("entries: %v, want %v", got, want)
			}
			if r := l.read.rows["marked"]; r.count != 1 || !r.lastRunAt.Equal(now) {
				t.Errorf("what was marked meanwhile: %+v", r)
			}
			if l.read.stale || l.read.horizon != horizon {
				t.Errorf("stale: %v; what was left out is not looked at again: %q, %q", l.read.stale, horizon, l.read.horizon)
			}
			// Who enables again what the beat has disabled is heard.
			execute(t, s, "UPDATE ", taskTable, " SET enabled = TRUE WHERE name = 'once'")
			scanned(t, l, scanNew)
			if got := tasksOf(l); got["once"] != "new" {
				t.Errorf("entries: %v", got)
			}
		})
	}
}
