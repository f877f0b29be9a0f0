package django

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// fill writes many rows of a schedule that is never due.
func fill(b *testing.B, s *Store, entries int) {
	b.Helper()
	put(b, s, "first", `{task: a, schedule: "0 0 29 2 *", timezone: Europe/Berlin}`)
	id := find(b, s, "first").schedule[crontab].Int64
	for first := 0; first < entries; first += 500 {
		var rows strings.Builder
		for i := range 500 {
			fmt.Fprintf(&rows, ", ('entry-%d', 'tasks.add', '[%d]', '{}', '{}', '', TRUE, FALSE, 1, %d, '2026-01-01 00:00:00.123456+00:00', '2026-01-01 00:00:00.123456+00:00')", first+i, i, id)
		}
		execute(b, s, "INSERT INTO ", taskTable, " (name, task, args, kwargs, headers, description, enabled, one_off, total_run_count, crontab_id, last_run_at, date_changed) VALUES ",
			rows.String()[2:])
	}
}

// BenchmarkMark measures what a handful of runs costs among a hundred thousand rows, from Due to Done.
func BenchmarkMark(b *testing.B) {
	const entries, some = 100_000, 4
	for name, url := range databases(b) {
		b.Run(name, func(b *testing.B) {
			s := opened(b, Config{URL: url()})
			fill(b, s, entries)
			execute(b, s, "UPDATE ", taskTable, " SET last_run_at = ", s.dialect.time(time.Now()), ", date_changed = ", s.dialect.stamp(time.Now()))
			l := lead(b, s)
			now := time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
			if _, _, err := l.Due(b.Context(), now, 1); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				due, _, err := l.Due(b.Context(), now, some)
				if err != nil || len(due) != some {
					b.Fatal(len(due), err)
				}
				var marks []scheduler.Mark
				var runs []scheduler.Run
				for _, r := range due {
					n := r.State.TotalRunCount + 1
					run := scheduler.Run{Entry: r.Entry.Name, ID: fmt.Sprint(r.Entry.Name, n), Moment: now, Number: n, Task: r.Entry.Task}
					marks = append(marks, scheduler.Mark{Entry: r.Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: n}, Next: now.Add(time.Hour), Runs: []scheduler.Run{run}})
					runs = append(runs, run)
				}
				if err := l.Mark(b.Context(), marks); err != nil {
					b.Fatal(err)
				}
				if err := l.Done(b.Context(), runs); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
