package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// testWhileLeading: what others change is seen by the one that leads within a second.
func testWhileLeading(b *bench) {
	s, other := b.open(), b.open()
	b.put(s, "removed", `{task: a, schedule: 60}`)
	b.put(s, "paused", `{task: a, schedule: 60}`)
	b.put(s, "slower", `{task: a, schedule: 60}`)
	b.put(s, "faster", `{task: a, schedule: 3600}`)
	l := b.lead(s)
	b.due(l, time.Now())
	b.put(other, "added", `{task: a, schedule: 60}`)
	b.put(other, "slower", `{task: a, schedule: 3600}`)
	b.put(other, "faster", `{task: a, schedule: 60}`)
	if err := errors.Join(other.Remove(b.ctx, "removed"), other.Pause(b.ctx, "paused", true)); err != nil {
		b.Fatal(err)
	}
	names := map[string]bool{}
	for _, r := range b.due(l, time.Now().Add(2*time.Minute)) {
		names[r.Entry.Name] = true
	}
	if !reflect.DeepEqual(names, map[string]bool{"added": true, "faster": true}) {
		b.Errorf("due: %v", names)
	}
}

// testChanged: an entry that is changed between Due and Mark is what it was changed to.
func testChanged(b *bench) {
	s, other := b.open(), b.open()
	b.put(s, "e", `{task: a, schedule: 60}`)
	b.put(s, "f", `{task: a, schedule: 60}`)
	l := b.lead(s)
	moment := time.Now().Add(time.Minute + time.Second).UTC().Truncate(time.Second)
	due := b.due(l, moment)
	if len(due) != 2 {
		b.Fatalf("due: %v", due)
	}
	b.put(other, "e", `{task: b, schedule: 7200}`)
	err := l.Mark(b.ctx, []scheduler.Mark{mark(due[0], moment), mark(due[1], moment)})
	if err != nil && !errors.Is(err, scheduler.ErrChanged) {
		b.Fatalf("mark: %v", err)
	}
	if runs := b.pending(l); err != nil && len(runs) != 0 || err == nil && len(runs) != 2 {
		b.Errorf("mark: %v; pending %v", err, runs)
	}
	same(b, b.get(s, "e").Entry, Entry(b, "e", `{task: b, schedule: 7200}`))
	for _, r := range b.due(l, moment.Add(time.Second)) {
		if r.Entry.Name == "e" {
			b.Errorf("it is due as it was before: %v", r)
		}
	}
	if due := b.due(l, moment.Add(3*time.Hour)); len(due) != 2 {
		b.Errorf("due after it all: %v", due)
	}
}

// testManyChanged: however many entries are changed between Due and Mark, the next Due tells all of them as they are, also when nobody
// asks for Pending before it.
func testManyChanged(b *bench) {
	s, other := b.open(), b.open()
	entries := make([]*scheduler.Entry, 12)
	put := func(s scheduler.Store, text string) {
		b.Helper()
		for i := range entries {
			entries[i] = Entry(b, fmt.Sprint("e", i), text)
		}
		if err := s.Put(b.ctx, entries...); err != nil {
			b.Fatalf("put: %v", err)
		}
	}
	put(s, `{task: a, schedule: 60}`)
	l := b.lead(s)
	moment := time.Now().Add(3 * time.Minute).UTC().Truncate(time.Second)
	marks := func(now time.Time) (all []scheduler.Mark) {
		for _, r := range b.due(l, now) {
			all = append(all, mark(r, moment))
		}
		return all
	}
	before := marks(moment)
	put(other, `{task: b, schedule: 60}`)
	err := l.Mark(b.ctx, before)
	if err == nil { // it goes by what Due said
		return
	}
	if !errors.Is(err, scheduler.ErrChanged) {
		b.Fatalf("mark: %v", err)
	}
	after := marks(moment.Add(time.Millisecond))
	if len(before) != len(entries) || len(after) != len(entries) {
		b.Fatalf("due: %d, and %d after the change; want %d", len(before), len(after), len(entries))
	}
	for _, m := range after {
		same(b, m.Entry, Entry(b, m.Entry.Name, `{task: b, schedule: 60}`))
	}
	b.mark(l, after...)
	if runs := b.pending(l); len(runs) != len(entries) {
		b.Errorf("pending: %d", len(runs))
	}
}

// meddled is a store each of whose entries is changed by somebody else between the first look at it and its mark.
type meddled struct {
	scheduler.Store
	scheduler.Lease
	b       *bench
	other   scheduler.Store
	changed map[string]bool
}

func (m *meddled) Close() error { return m.Store.Close() }

func (m *meddled) Lead(ctx context.Context) (lease scheduler.Lease, err error) {
	m.Lease, err = m.Store.Lead(ctx)
	return m, err
}

// Mark is refused only because of a change that was made just now: all that were made before are known since.
func (m *meddled) Mark(ctx context.Context, marks []scheduler.Mark) error {
	var changes []*scheduler.Entry
	for _, mark := range marks {
		if name := mark.Entry.Name; !m.changed[name] {
			m.changed[name] = true
			changes = append(changes, Entry(m.b, name, `{task: b, schedule: 1}`))
		}
	}
	if err := m.other.Put(ctx, changes...); err != nil {
		return err
	}
	err := m.Lease.Mark(ctx, marks)
	if errors.Is(err, scheduler.ErrChanged) && len(changes) == 0 {
		m.b.Errorf("the mark of %d entries is refused, none of which was changed since they were looked at", len(marks))
	}
	return err
}

// nowhere is a broker that takes everything.
type nowhere struct{ transport.Transport }

func (nowhere) Declare(context.Context, transport.Queue) error         { return nil }
func (nowhere) Publish(context.Context, []transport.Publication) error { return nil }

// testBeatGoesOn: a beat sends all of the entries that are changed while they are due, and no failure of the store is counted.
func testBeatGoesOn(b *bench) {
	s := &meddled{Store: b.open(), b: b, other: b.open(), changed: map[string]bool{}}
	var mu sync.Mutex
	missing := map[string]bool{}
	for i := range 12 {
		name := fmt.Sprint("e", i)
		b.put(s, name, `{task: a, schedule: 1}`)
		missing[name] = true
	}
	client, err := task.NewClient(nowhere{}, nil, task.Config{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	beat, err := scheduler.New(client, s, scheduler.Config{OnSent: func(r scheduler.Run, _ time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if r.Task.Name() == "b" {
			delete(missing, r.Entry)
		}
		if len(missing) == 0 {
			stop()
		}
	}, Logger: slog.New(slog.NewTextHandler(b.Output(), nil))})
	if err != nil {
		b.Fatal(err)
	}
	if err := beat.Run(ctx); err != nil {
		b.Fatal(err)
	}
	if stats := beat.Stats(); len(missing) > 0 || stats.StoreErrors > 0 {
		b.Errorf("not sent as they were changed to: %v; %+v", missing, stats)
	}
}
