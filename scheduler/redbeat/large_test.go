package redbeat

import (
	"fmt"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/storetest"
	"github.com/gelery/gelery/task"
)

// BenchmarkHundredThousand measures a schedule of a hundred thousand entries: how long a beat takes until it knows what is due, what
// a look costs when nothing is, and what a thousand that are due at once cost until they are marked.
func BenchmarkHundredThousand(b *testing.B) {
	const entries = 100_000
	s := opened(b, Config{URL: testservice.Redis(b)})
	ctx := b.Context()
	now := time.Now()
	e := storetest.Entry(b, "e", `{task: tasks.add, schedule: 7200, args: [1, 2]}`)
	pipe := s.client.Pipeline()
	for i := range entries {
		e.Name = fmt.Sprint("entry ", i)
		r, err := s.codec.write(e, raw{})
		if err != nil {
			b.Fatal(err)
		}
		last := now.Add(time.Duration(i/1000)*60*time.Second - 2*time.Hour + time.Minute) // a thousand each minute
		if r.meta, err = writeMeta(scheduler.State{LastRunAt: last, TotalRunCount: 1}, ""); err != nil {
			b.Fatal(err)
		}
		key := s.keys.entry(e.Name)
		pipe.HSet(ctx, key, definitionField, r.definition, metaField, r.meta)
		pipe.ZAdd(ctx, s.keys.schedule, z(score(e.Due(scheduler.State{LastRunAt: last})), key))
		if i%1000 == 999 {
			if _, err := pipe.Exec(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	var start, look, due, mark time.Duration
	for b.Loop() {
		begin := time.Now()
		s.led = false
		l := led(b, s)
		if _, err := l.Rewind(ctx, now, scheduler.Skew); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Pending(ctx); err != nil {
			b.Fatal(err)
		}
		if _, _, err := l.Due(ctx, now, 1000); err != nil {
			b.Fatal(err)
		}
		start += time.Since(begin)
		begin = time.Now()
		if _, _, err := l.Due(ctx, now.Add(time.Second), 1000); err != nil {
			b.Fatal(err)
		}
		look += time.Since(begin)
		now = now.Add(time.Minute)
		begin = time.Now()
		all, _, err := l.Due(ctx, now, 1000)
		if err != nil || len(all) == 0 {
			b.Fatal(len(all), err)
		}
		due += time.Since(begin)
		begin = time.Now()
		marks := make([]scheduler.Mark, len(all))
		for i, r := range all {
			m := scheduler.Mark{Entry: r.Entry, State: scheduler.State{LastRunAt: now, TotalRunCount: r.State.TotalRunCount + 1}}
			m.Next = r.Entry.Due(m.State)
			m.Runs = []scheduler.Run{{Entry: r.Entry.Name, ID: fmt.Sprint(r.Entry.Name, m.State.TotalRunCount), Moment: now, Number: m.State.TotalRunCount, Task: task.S("tasks.add", 1, 2)}}
			marks[i] = m
		}
		if err := l.Mark(ctx, marks); err != nil {
			b.Fatal(err)
		}
		mark += time.Since(begin)
		runs := make([]scheduler.Run, len(marks))
		for i, m := range marks {
			runs[i] = m.Runs[0]
		}
		if err := l.Done(ctx, runs); err != nil {
			b.Fatal(err)
		}
		if err := l.Release(ctx); err != nil {
			b.Fatal(err)
		}
	}
	for what, span := range map[string]time.Duration{"start": start, "look": look, "due": due, "mark": mark} {
		b.ReportMetric(span.Seconds()*1000/float64(b.N), what+"-ms")
	}
}

// BenchmarkStatic measures how long a beat takes to store a beat_schedule of a hundred thousand entries that Redis has already, and at
// first has not.
func BenchmarkStatic(b *testing.B) {
	url := testservice.Redis(b)
	entries := make([]*scheduler.Entry, 100_000)
	for i := range entries {
		e := *storetest.Entry(b, "e", `{task: tasks.add, schedule: 7200, args: [1, 2]}`)
		e.Name = fmt.Sprint("entry ", i)
		entries[i] = &e
	}
	var first time.Duration
	for b.Loop() {
		s := opened(b, Config{URL: url, Static: entries})
		begin := time.Now()
		l := led(b, s)
		if first == 0 {
			first = time.Since(begin)
		}
		if err := l.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(first.Seconds()*1000, "first-ms")
}
