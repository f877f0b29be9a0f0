package backendstest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// watching ranges over a Watch in the background. It sends each state, and closes the channel at the end; the error,
// if any, is there then.
type watching struct {
	states chan protocol.State
	err    error
}

func watch(ctx context.Context, b backends.Backend, ids ...string) *watching {
	w := &watching{states: make(chan protocol.State, 100)}
	go func() {
		defer close(w.states)
		for m, err := range b.Watch(ctx, ids...) {
			if err != nil {
				w.err = err
				return
			}
			w.states <- m.Status
		}
	}()
	return w
}

// next returns the next state, or "" at the end.
func (w *watching) next(t *testing.T) protocol.State {
	t.Helper()
	select {
	case s := <-w.states:
		return s
	case <-time.After(wait):
		t.Fatal("nothing heard")
		return ""
	}
}

func testWatchBeforeStore(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	w := watch(deadline(t), client, "a")
	for _, step := range []struct {
		store *protocol.ResultMeta
		want  protocol.State
	}{
		{nil, protocol.Pending},
		{state("a", protocol.Started), protocol.Started},
		{state("a", "PROGRESS"), "PROGRESS"},
		{failure("a"), protocol.Failure},
	} {
		if step.store != nil {
			mustStore(t, worker, step.store)
		}
		if s := w.next(t); s != step.want {
			t.Fatalf("heard %q, want %s (%v)", s, step.want, w.err)
		}
	}
	if s := w.next(t); s != "" || w.err != nil {
		t.Errorf("goes on after the final state: %q, %v", s, w.err)
	}
}

func testWatchAfterStore(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	mustStore(t, b, success("a", int64(1)), state("b", protocol.Started))
	var got []protocol.State
	for m, err := range b.Watch(deadline(t), "a") {
		if err != nil {
			t.Fatal(err)
		}
		if m.Result != int64(1) {
			t.Errorf("result %v", m.Result)
		}
		got = append(got, m.Status)
	}
	if len(got) != 1 || got[0] != protocol.Success {
		t.Errorf("heard %v", got)
	}
	w := watch(deadline(t), b, "b")
	if s := w.next(t); s != protocol.Started {
		t.Errorf("heard %s first", s)
	}
	mustStore(t, b, success("b", nil))
	if s := w.next(t); s != protocol.Success {
		t.Errorf("heard %s then", s)
	}
}

func testWatchUnknown(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	w := watch(ctx, client, "nobody sent this")
	if s := w.next(t); s != protocol.Pending {
		t.Errorf("heard %q, %v", s, w.err)
	}
	mustStore(t, worker, success("another", nil))
	cancel()
	if s := w.next(t); s != "" || !errors.Is(w.err, context.Canceled) {
		t.Errorf("heard %q, %v", s, w.err)
	}
}

func testWatchForgotten(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	mustStore(t, b, state("a", protocol.Started))
	w := watch(deadline(t), b, "a")
	if s := w.next(t); s != protocol.Started {
		t.Fatal(s)
	}
	if err := b.Forget(deadline(t), "a"); err != nil {
		t.Fatal(err)
	}
	mustStore(t, b, success("a", nil))
	if s := w.next(t); s != protocol.Success {
		t.Errorf("heard %s", s)
	}
}

func testWatchMany(t *testing.T, open Opener) {
	const n = 2500
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	var ids []string
	var before, after []*protocol.ResultMeta
	for i := range n {
		ids = append(ids, fmt.Sprint("t", i))
		if i%2 == 0 {
			before = append(before, success(ids[i], int64(i)))
		} else {
			after = append(after, success(ids[i], int64(i)))
		}
	}
	mustStore(t, worker, before...)
	stored := make(chan error, 1)
	seen := map[string]int{}
	pending := 0
	for m, err := range client.Watch(deadline(t), ids...) {
		if err != nil {
			t.Fatal(err)
		}
		if m.Status == protocol.Pending {
			if pending++; pending == 1 {
				go func() { stored <- worker.Store(t.Context(), after) }()
			}
			continue
		}
		if fmt.Sprint("t", m.Result) != m.TaskID {
			t.Errorf("task %s has result %v", m.TaskID, m.Result)
		}
		seen[m.TaskID]++
	}
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
	if len(seen) != n {
		t.Errorf("heard of %d tasks of %d", len(seen), n)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("heard of %s %d times", id, times)
		}
	}
}

func testWatchSameTwice(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	first, second := watch(deadline(t), b, "a", "a"), watch(deadline(t), b, "a")
	for _, w := range []*watching{first, second} {
		if s := w.next(t); s != protocol.Pending {
			t.Fatal(s)
		}
	}
	mustStore(t, b, success("a", nil))
	for _, w := range []*watching{first, second} {
		if s := w.next(t); s != protocol.Success {
			t.Errorf("heard %s", s)
		}
		if s := w.next(t); s != "" || w.err != nil {
			t.Errorf("heard %s at the end, %v", s, w.err)
		}
	}
	// The same Watch may be ranged over again.
	seq := b.Watch(deadline(t), "a")
	for range 2 {
		count := 0
		for _, err := range seq {
			if count++; err != nil {
				t.Error(err)
			}
		}
		if count != 1 {
			t.Errorf("heard %d times", count)
		}
	}
}

func testWatchNothing(t *testing.T, open Opener) {
	for m, err := range open(t, backends.Options{}).Watch(deadline(t)) {
		t.Errorf("heard %v, %v", m, err)
	}
}

func testWatchCancelled(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	w := watch(ctx, b, "a", "b")
	other := watch(deadline(t), b, "a")
	for range 2 {
		w.next(t)
	}
	other.next(t)
	cancel(cause)
	if s := w.next(t); s != "" || !errors.Is(w.err, cause) {
		t.Errorf("heard %q, %v", s, w.err)
	}
	mustStore(t, b, success("a", nil))
	if s := other.next(t); s != protocol.Success {
		t.Errorf("the other watch heard %q, %v", s, other.err)
	}
}

func testWatchBreak(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	for range 3 { // leaving and coming back, also while the driver is still tidying up
		for m, err := range b.Watch(deadline(t), "a", "b") {
			if err != nil || m.Status != protocol.Pending {
				t.Fatal(m, err)
			}
			break
		}
	}
	w := watch(deadline(t), b, "a")
	w.next(t)
	mustStore(t, b, success("a", nil))
	if s := w.next(t); s != protocol.Success {
		t.Errorf("heard %q, %v", s, w.err)
	}
}

func testWatchAndClose(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	w := watch(deadline(t), b, "a")
	w.next(t)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if s := w.next(t); s != "" || w.err == nil {
		t.Errorf("heard %q, %v", s, w.err)
	}
}

func testSlowWatcher(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	other := watch(deadline(t), client, "last")
	other.next(t)
	n := 0
	var last protocol.State
	for m, err := range client.Watch(deadline(t), "a") {
		if err != nil {
			t.Fatal(err)
		}
		n++
		last = m.Status
		if n > 1 {
			continue
		}
		for i := range 300 {
			mustStore(t, worker, &protocol.ResultMeta{TaskID: "a", Status: "PROGRESS", Result: int64(i)})
		}
		mustStore(t, worker, success("a", nil), success("last", nil))
		for s := range other.states { // a slow one does not keep the others waiting
			if s == protocol.Success {
				break
			}
		}
	}
	if last != protocol.Success {
		t.Errorf("ended with %s", last)
	}
	if n > 10 {
		t.Errorf("%d states were kept for a slow watcher", n)
	}
}
