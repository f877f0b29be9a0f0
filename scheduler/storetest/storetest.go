// Package storetest is what every store of a schedule must do, as tests.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
)

// patience is how long anything may take.
const patience = 60 * time.Second

// Run tests stores. fresh makes one schedule that has no entries, and returns how it is opened, as often as is asked: each time as
// another process would. lacks names those of the definitions that the store has no place for, and must refuse.
func Run(t *testing.T, fresh func(t *testing.T) (open func() scheduler.Store), lacks ...string) {
	for name, test := range map[string]func(*bench){
		"entries":       testEntries,
		"no entry":      testNoEntry,
		"change":        testChange,
		"lead":          testLead,
		"mark":          testMark,
		"left behind":   testLeftBehind,
		"limit":         testLimit,
		"while leading": testWhileLeading,
		"changed":       testChanged,
		"many changed":  testManyChanged,
		"beat goes on":  testBeatGoesOn,
		"counts":        testCounts,
		"all or none":   testAllOrNone,
		"pause":         testPause,
		"rewind":        testRewind,
		"done for good": testDoneForGood,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			t.Cleanup(cancel)
			open := fresh(t)
			test(&bench{T: t, ctx: ctx, lacks: lacks, open: func() scheduler.Store {
				s := open()
				t.Cleanup(func() {
					if err := s.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				})
				return s
			}})
		})
	}
}

// bench is one test's schedule.
type bench struct {
	*testing.T
	ctx   context.Context
	open  func() scheduler.Store
	lacks []string
}

// minutely is a schedule of every minute: one that a store may have to keep beside others' tables.
func (b *bench) minutely() string {
	if slices.Contains(b.lacks, "cron") {
		return `{task: a, schedule: "* * * * *"}`
	}
	return `{task: a, schedule: {cron: "* * * * *"}}`
}

// Entry is an entry of a definition in YAML.
func Entry(t testing.TB, name, text string) *scheduler.Entry {
	t.Helper()
	v, err := serialization.YAML.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	e, err := scheduler.ParseEntry(name, v.(map[string]any), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (b *bench) put(s scheduler.Store, name, text string) {
	b.Helper()
	if err := s.Put(b.ctx, Entry(b, name, text)); err != nil {
		b.Fatalf("put: %v", err)
	}
}

func (b *bench) get(s scheduler.Store, name string) scheduler.Record {
	b.Helper()
	r, err := s.Entry(b.ctx, name)
	if err != nil {
		b.Fatalf("entry %s: %v", name, err)
	}
	return r
}

func (b *bench) lead(s scheduler.Store) scheduler.Lease {
	b.Helper()
	l, err := s.Lead(b.ctx)
	if err != nil {
		b.Fatalf("lead: %v", err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := l.Release(ctx); err != nil && !errors.Is(err, scheduler.ErrNotLeading) {
			b.Errorf("release: %v", err)
		}
	})
	return l
}

func (b *bench) due(l scheduler.Lease, now time.Time) []scheduler.Record {
	b.Helper()
	due, next, err := l.Due(b.ctx, now, 1000)
	if err != nil {
		b.Fatalf("due: %v", err)
	}
	if len(due) == 0 && !next.IsZero() && !next.After(now) {
		b.Errorf("nothing is due at %v, and next is %v", now, next)
	}
	return due
}

// mark is what a beat does with one that is due: a run of its next moment.
func mark(r scheduler.Record, moment time.Time) scheduler.Mark {
	n := r.State.TotalRunCount + 1
	m := scheduler.Mark{Entry: r.Entry, State: scheduler.State{LastRunAt: moment, TotalRunCount: n}}
	m.Runs = []scheduler.Run{{Entry: r.Entry.Name, ID: fmt.Sprintf("%s-%d", r.Entry.Name, n), Moment: moment, Number: n, Task: task.S("tasks.add", int64(1), "ü").With(task.Queue("q"))}}
	m.Next = r.Entry.Due(m.State)
	return m
}

func (b *bench) mark(l scheduler.Lease, marks ...scheduler.Mark) {
	b.Helper()
	if err := l.Mark(b.ctx, marks); err != nil {
		b.Fatalf("mark: %v", err)
	}
}

func (b *bench) pending(l scheduler.Lease) []scheduler.Run {
	b.Helper()
	runs, err := l.Pending(b.ctx)
	if err != nil {
		b.Fatalf("pending: %v", err)
	}
	return runs
}

// same tells whether two entries say the same; a store may write out the fields of a crontab.
func same(b *bench, got, want *scheduler.Entry) {
	b.Helper()
	var texts [2]string
	for i, e := range []*scheduler.Entry{got, want} {
		if c, ok := e.Schedule.(*scheduler.Crontab); ok {
			written := *e
			var err error
			if written.Schedule, err = scheduler.NewCrontab(c.Numbers()); err != nil {
				b.Fatal(err)
			}
			e = &written
		}
		d, err := e.Definition()
		if err != nil {
			b.Fatal(err)
		}
		text, err := serialization.AppendJSON(nil, d)
		if err != nil {
			b.Fatal(err)
		}
		texts[i] = string(text)
	}
	if texts[0] != texts[1] {
		b.Errorf("entry %s\n got %s\nwant %s", want.Name, texts[0], texts[1])
	}
}

// definitions are entries of every kind.
var definitions = map[string]string{
	"interval":  `{task: tasks.add, schedule: 90, args: [1, 2.5, x, null, [true]], kwargs: {a: {b: ü}}, options: {queue: math, priority: 3, expires: 60, headers: {h: 1}}}`,
	"short":     `{task: tasks.add, schedule: 0.25}`,
	"relative":  `{task: tasks.add, schedule: 3600, relative: true}`,
	"there":     `{task: tasks.add, schedule: 3600, relative: true, timezone: Asia/Tokyo}`,
	"crontab":   `{task: tasks.add, schedule: "*/15 8-18/2 1-7,15 jan,mar mon-fri"}`,
	"sunday":    `{task: tasks.add, schedule: "0 22-4 * * 7"}`,
	"zone":      `{task: tasks.add, schedule: "30 2 * * *", timezone: Europe/Berlin}`,
	"cron":      `{task: tasks.add, schedule: {cron: "0 0 13 * fri"}}`,
	"solar":     `{task: tasks.add, schedule: {solar: sunset, latitude: 52.5, longitude: 13}}`,
	"at":        `{task: tasks.add, schedule: {at: 2100-01-31T12:00:00}}`,
	"paused":    `{task: tasks.add, schedule: 5, enabled: false}`,
	"ours":      `{task: tasks.add, schedule: 5, missed: none, deadline: 30, jitter: 2, keep_expired: true, start: 2026-01-01}`,
	"end":       `{task: tasks.add, schedule: 5, end: 2100-01-01, enabled: false}`,
	"one off":   `{task: tasks.add, schedule: "@daily", one_off: true, missed: 7}`,
	"canvas":    `{task: {task: celery.chain, subtask_type: chain, kwargs: {tasks: [{task: a}, {task: b}]}}, schedule: 5}`,
	"immutable": `{task: {task: a, immutable: true}, schedule: 5}`,
	"date":      `{task: tasks.add, schedule: 5, args: [2026-01-31T12:00:00Z, 2026-01-31]}`,
	"typed":     `{task: tasks.add, schedule: 5, args: [{__type__: interval}]}`,
	"a:b/c d.ü": `{task: tasks.add, schedule: 5}`,
}

func testEntries(b *bench) {
	s, other := b.open(), b.open()
	definitions := maps.Clone(definitions)
	for _, name := range b.lacks {
		var of *scheduler.EntryError
		if err := s.Put(b.ctx, Entry(b, name, definitions[name])); !errors.As(err, &of) || of.Entry != name || of.Field == "" {
			b.Errorf("%s, for which there is no place, is put: %v", name, err)
		}
		delete(definitions, name)
	}
	for name, text := range definitions {
		b.put(s, name, text)
	}
	for name, text := range definitions {
		r := b.get(other, name)
		same(b, r.Entry, Entry(b, name, text))
		if age := time.Since(r.State.LastRunAt); age < 0 || age > patience || r.State.TotalRunCount != 0 {
			b.Errorf("%s: a new entry has the state %+v", name, r.State)
		}
	}
	found := map[string]bool{}
	for r, err := range other.Entries(b.ctx) {
		if err != nil {
			b.Fatal(err)
		}
		if found[r.Entry.Name] {
			b.Errorf("%s is there twice", r.Entry.Name)
		}
		found[r.Entry.Name] = true
	}
	if len(found) != len(definitions) {
		b.Errorf("found %d entries of %d: %v", len(found), len(definitions), found)
	}
	for _, err := range other.Entries(b.ctx) { // who looks may end
		if err != nil {
			b.Error(err)
		}
		break
	}
	if err := s.Remove(b.ctx, "interval"); err != nil {
		b.Fatal(err)
	}
	if _, err := other.Entry(b.ctx, "interval"); !errors.Is(err, scheduler.ErrNoEntry) {
		b.Errorf("a removed entry: %v", err)
	}
	var of *scheduler.EntryError
	if err := s.Put(b.ctx, &scheduler.Entry{Name: "x"}); !errors.As(err, &of) {
		b.Errorf("an entry without a schedule is put: %v", err)
	}
}

func testNoEntry(b *bench) {
	s := b.open()
	_, err := s.Entry(b.ctx, "none")
	for what, err := range map[string]error{"entry": err, "pause": s.Pause(b.ctx, "none", true), "remove": s.Remove(b.ctx, "none")} {
		if !errors.Is(err, scheduler.ErrNoEntry) {
			b.Errorf("%s: %v", what, err)
		}
	}
}

// testChange: an entry that is put again keeps its state.
func testChange(b *bench) {
	s := b.open()
	b.put(s, "e", `{task: a, schedule: 3600}`)
	l := b.lead(s)
	moment := time.Now().Add(time.Hour + time.Minute).UTC().Truncate(time.Second)
	due := b.due(l, moment)
	if len(due) != 1 {
		b.Fatalf("due: %v", due)
	}
	b.mark(l, mark(due[0], moment))
	b.put(s, "e", `{task: b, schedule: {solar: sunset, latitude: 52.5, longitude: 13}}`)
	b.put(s, "e", `{task: b, schedule: 60}`)
	r := b.get(s, "e")
	same(b, r.Entry, Entry(b, "e", `{task: b, schedule: 60}`))
	if !r.State.LastRunAt.Equal(moment) || r.State.TotalRunCount != 1 {
		b.Errorf("state after the change: %+v", r.State)
	}
}

// testLead: one leads at a time.
func testLead(b *bench) {
	first, second := b.open(), b.open()
	l := b.lead(first)
	got := make(chan error, 1)
	var taken scheduler.Lease
	go func() {
		var err error
		taken, err = second.Lead(b.ctx)
		got <- err
	}()
	select {
	case <-l.Lost():
		b.Fatal("the lease is lost")
	case err := <-got:
		b.Fatalf("two lead: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	if err := l.Release(b.ctx); err != nil {
		b.Fatalf("release: %v", err)
	}
	if err := <-got; err != nil {
		b.Fatalf("the standby: %v", err)
	}
	if err := taken.Release(b.ctx); err != nil {
		b.Fatalf("release: %v", err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if l, err := second.Lead(ctx); err == nil {
		_ = l.Release(b.ctx)
	}
}

// testMark: what is marked is pending until it is done, and due again at its next moment.
func testMark(b *bench) {
	s := b.open()
	b.put(s, "hourly", `{task: a, schedule: 3600}`)
	b.put(s, "daily", `{task: a, schedule: 86400}`)
	l := b.lead(s)
	start := time.Now()
	if due := b.due(l, start); len(due) != 0 {
		b.Fatalf("new entries are due at once: %v", due)
	}
	hour := start.Add(time.Hour + time.Second)
	due := b.due(l, hour)
	if len(due) != 1 || due[0].Entry.Name != "hourly" {
		b.Fatalf("due after an hour: %v", due)
	}
	moment := due[0].Entry.Due(due[0].State)
	m := mark(due[0], moment)
	b.mark(l, m)
	if due := b.due(l, hour); len(due) != 0 {
		b.Errorf("due after the mark: %v", due)
	}
	runs := b.pending(l)
	if len(runs) != 1 {
		b.Fatalf("pending: %v", runs)
	}
	got, want := runs[0], m.Runs[0]
	if got.ID != want.ID || got.Entry != want.Entry || got.Number != 1 || !got.Moment.Equal(want.Moment) || !reflect.DeepEqual(wire(b, got), wire(b, want)) {
		b.Errorf("pending %+v\nwant %+v", got, want)
	}
	if err := l.Done(b.ctx, runs); err != nil {
		b.Fatalf("done: %v", err)
	}
	if runs := b.pending(l); len(runs) != 0 {
		b.Errorf("pending after done: %v", runs)
	}
	if r := b.get(s, "hourly"); !r.State.LastRunAt.Equal(moment) || r.State.TotalRunCount != 1 {
		b.Errorf("state: %+v; want %v", r.State, moment)
	}
	if due := b.due(l, moment.Add(time.Hour-10*time.Millisecond)); len(due) != 0 {
		b.Errorf("due too early: %v", due)
	}
	if due := b.due(l, moment.Add(time.Hour)); len(due) != 1 {
		b.Errorf("not due at its moment: %v", due)
	}
}

func wire(b *bench, r scheduler.Run) any {
	b.Helper()
	w, err := r.Task.Wire()
	if err != nil {
		b.Fatal(err)
	}
	return w.Value()
}

// testLeftBehind: the next beat finds what the one before has marked, and not what that has done.
func testLeftBehind(b *bench) {
	s := b.open()
	b.put(s, "e", `{task: a, schedule: 60}`)
	l := b.lead(s)
	moment := time.Now().Add(time.Minute + time.Second).UTC().Truncate(time.Second)
	b.mark(l, mark(b.due(l, moment)[0], moment))
	if err := l.Done(b.ctx, b.pending(l)); err != nil {
		b.Fatal(err)
	}
	later := moment.Add(time.Minute)
	b.mark(l, mark(b.due(l, later)[0], later))
	if err := l.Release(b.ctx); err != nil {
		b.Fatal(err)
	}
	second := b.lead(b.open())
	runs := b.pending(second)
	if len(runs) != 1 || runs[0].ID != "e-2" || !runs[0].Moment.Equal(later) {
		b.Fatalf("pending: %+v", runs)
	}
	if due := b.due(second, later); len(due) != 0 {
		b.Errorf("due again: %v", due)
	}
}

// testLimit: what is due is handed out in parts.
func testLimit(b *bench) {
	s := b.open()
	for i := range 25 {
		b.put(s, fmt.Sprint("e", i), `{task: a, schedule: 60}`)
	}
	l := b.lead(s)
	now := time.Now().Add(time.Hour)
	for _, want := range []int{10, 10, 5, 0} {
		due, _, err := l.Due(b.ctx, now, 10)
		if err != nil || len(due) != want {
			b.Fatalf("due: %d, %v; want %d", len(due), err, want)
		}
		marks := make([]scheduler.Mark, len(due))
		for i, r := range due {
			marks[i] = mark(r, now)
		}
		if len(marks) > 0 {
			b.mark(l, marks...)
		}
	}
	if runs := b.pending(l); len(runs) != 25 {
		b.Errorf("pending: %d", len(runs))
	}
}

// testCounts: a lease that counts its entries counts all of them.
func testCounts(b *bench) {
	s := b.open()
	for _, name := range []string{"a", "b", "c"} {
		b.put(s, name, `{task: a, schedule: 60}`)
	}
	if err := s.Pause(b.ctx, "a", true); err != nil {
		b.Fatal(err)
	}
	l := b.lead(s)
	counter, ok := l.(scheduler.Counter)
	if !ok {
		b.Skip("it does not count")
	}
	counted := func(now time.Time, enabled, paused int) {
		b.Helper()
		b.due(l, now)
		c, err := counter.Counts(b.ctx)
		if err != nil || c.Store == "" || c.Enabled+c.Paused != enabled+paused || !c.Mixed && c.Paused != paused {
			b.Errorf("counts: %+v, %v; there are %d and %d that are paused", c, err, enabled, paused)
		}
	}
	counted(time.Now(), 2, 1)
	b.put(s, "d", `{task: a, schedule: 60}`)
	if err := errors.Join(s.Pause(b.ctx, "a", false), s.Pause(b.ctx, "b", true), s.Pause(b.ctx, "c", true), s.Remove(b.ctx, "c")); err != nil {
		b.Fatal(err)
	}
	counted(time.Now().Add(10*time.Second), 2, 1)
}

// testAllOrNone: of entries that are put together all are there or none.
func testAllOrNone(b *bench) {
	s := b.open()
	b.put(s, "a", `{task: a, schedule: 60}`)
	bad := Entry(b, "bad", `{task: a, schedule: 60}`)
	bad.Jitter = -1
	var of *scheduler.EntryError
	if err := s.Put(b.ctx, Entry(b, "a", `{task: b, schedule: 60}`), Entry(b, "b", `{task: b, schedule: 60}`), bad); !errors.As(err, &of) || of.Entry != "bad" {
		b.Errorf("one that is wrong among others: %v", err)
	}
	if _, err := s.Entry(b.ctx, "b"); !errors.Is(err, scheduler.ErrNoEntry) {
		b.Errorf("one beside it: %v", err)
	}
	same(b, b.get(s, "a").Entry, Entry(b, "a", `{task: a, schedule: 60}`))
	if err := s.Put(b.ctx, Entry(b, "a", `{task: c, schedule: 60}`), Entry(b, "b", `{task: c, schedule: 60}`)); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		same(b, b.get(s, name).Entry, Entry(b, name, `{task: c, schedule: 60}`))
	}
}

// testPause: a paused entry is not due, and goes on without what it missed.
func testPause(b *bench) {
	s := b.open()
	b.put(s, "e", `{task: a, schedule: 60}`)
	b.put(s, "solar", b.minutely())
	for _, name := range []string{"e", "solar"} {
		if err := s.Pause(b.ctx, name, true); err != nil {
			b.Fatal(err)
		}
		if !b.get(s, name).Entry.Paused {
			b.Errorf("%s is not paused", name)
		}
	}
	l := b.lead(s)
	if due := b.due(l, time.Now().Add(time.Hour)); len(due) != 0 {
		b.Errorf("paused, and due: %v", due)
	}
	begin := time.Now()
	for _, name := range []string{"e", "solar"} {
		if err := s.Pause(b.ctx, name, false); err != nil {
			b.Fatal(err)
		}
		r := b.get(s, name)
		if r.Entry.Paused || r.State.LastRunAt.Before(begin.Add(-time.Second)) {
			b.Errorf("%s goes on with %+v", name, r.State)
		}
	}
	if due := b.due(l, time.Now().Add(2*time.Minute)); len(due) != 2 {
		b.Errorf("due after the pause: %v", due)
	}
}

// testRewind: what was last run in the future goes on from now.
func testRewind(b *bench) {
	s := b.open()
	b.put(s, "e", `{task: a, schedule: 60}`)
	b.put(s, "cron", b.minutely())
	l := b.lead(s)
	now := time.Now()
	if n, err := l.Rewind(b.ctx, now, scheduler.Skew); n != 0 || err != nil {
		b.Errorf("rewind with nothing to do: %d, %v", n, err)
	}
	later := now.Add(24 * time.Hour).UTC().Truncate(time.Second)
	for _, r := range b.due(l, later) {
		b.mark(l, mark(r, later))
	}
	if due := b.due(l, now.Add(3*time.Minute)); len(due) != 0 {
		b.Errorf("due after a run in the future: %v", due)
	}
	if n, err := l.Rewind(b.ctx, now, scheduler.Skew); n != 2 || err != nil {
		b.Errorf("rewind: %d, %v", n, err)
	}
	if due := b.due(l, now.Add(3*time.Minute)); len(due) != 2 {
		b.Errorf("due after the rewind: %v", due)
	}
	if n, err := l.Rewind(b.ctx, now, scheduler.Skew); n != 0 || err != nil {
		b.Errorf("rewind again: %d, %v", n, err)
	}
	soon := now.Add(30 * time.Second).UTC().Truncate(time.Second)
	for _, r := range b.due(l, now.Add(3*time.Minute)) {
		b.mark(l, mark(r, soon))
	}
	for _, want := range []struct {
		skew time.Duration
		n    int
	}{{scheduler.Skew, 0}, {0, 2}} {
		if n, err := l.Rewind(b.ctx, now, want.skew); n != want.n || err != nil {
			b.Errorf("rewind of half a minute with a skew of %v: %d, %v", want.skew, n, err)
		}
	}
}

// testDoneForGood: what a beat pauses is paused.
func testDoneForGood(b *bench) {
	s := b.open()
	b.put(s, "at", `{task: a, schedule: {at: 2100-01-31T12:00:00}}`)
	b.put(s, "once", `{task: a, schedule: 60, one_off: true}`)
	l := b.lead(s)
	now := time.Date(2100, 2, 1, 0, 0, 0, 0, time.UTC)
	due := b.due(l, now)
	if len(due) != 2 {
		b.Fatalf("due: %v", due)
	}
	marks := []scheduler.Mark{mark(due[0], now), mark(due[1], now)}
	marks[0].Pause, marks[1].Pause = true, true
	b.mark(l, marks...)
	if due := b.due(l, now.Add(time.Hour)); len(due) != 0 {
		b.Errorf("due again: %v", due)
	}
	for _, name := range []string{"at", "once"} {
		if r := b.get(s, name); !r.Entry.Paused || r.State.TotalRunCount > 1 { // Django clears the count
			b.Errorf("%s: %+v, %+v", name, r.Entry, r.State)
		}
	}
}
