package worker

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// coded has an Is with a usual mistake: it panics for every other type.
type coded struct{ code int }

func (c *coded) Error() string        { return "coded" }
func (c *coded) Is(target error) bool { return target.(*coded).code == c.code }

func TestErrorsWithRudeMethods(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("is", func(context.Context) error { return &coded{1} })
	s.mux.Func("wrapped", func(context.Context) error { return task.AsPython(&coded{1}, "shop", "Declined") })
	s.mux.Func("panic", func(context.Context) error { panic(rudeError{}) })
	s.start(Config{Concurrency: 1})
	for _, name := range []string{"is", "wrapped", "panic"} {
		if e := s.failure(s.send(name)); e.Type == "" {
			t.Errorf("%s: %v", name, e)
		}
	}
	s.settled()
}

func TestContextEndsWithTheTask(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	kept := make(chan context.Context, 1)
	s.mux.Func("keep", func(ctx context.Context) error { kept <- ctx; return nil })
	s.start(Config{Concurrency: 1})
	s.send("keep")
	select {
	case <-(<-kept).Done():
	case <-time.After(30 * time.Second):
		t.Error("the context outlives its task")
	}
}

// away is a backend that does not answer.
type away struct {
	backends.Backend
	on atomic.Bool
}

func (b *away) Store(ctx context.Context, m []*protocol.ResultMeta) error {
	if b.on.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	return b.Backend.Store(ctx, m)
}

// TestColdStopWhileTheBackendIsAway fills everything that can be filled with outcomes nobody can store.
func TestColdStopWhileTheBackendIsAway(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := &away{Backend: s.client.Backend()}
	b.on.Store(true)
	client, err := task.NewClient(s.client.Transport(), b, task.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(client, s.mux, Config{Concurrency: 2})
	if err != nil {
		t.Fatal(err)
	}
	const n = 60
	eta := time.Now().Add(50 * time.Millisecond)
	for range n {
		s.raw(func(m *protocol.Message) { m.Headers.ID, m.Headers.ETA = protocol.NewID(), protocol.FormatTime(eta) })
		s.raw(body("123"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	<-w.Consuming()
	limit := s.context()
	for len(w.outcomes) < cap(w.outcomes) && limit.Err() == nil { // full: whoever reports now waits
		runtime.Gosched()
	}
	cancel()
	w.Terminate()
	select {
	case err := <-done:
		if !errors.Is(err, ErrTerminated) {
			t.Errorf("cold stop returned %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the cold stop hangs")
	}
	if d := s.depth(); d.Messages != 2*n || d.Unacked != 0 {
		t.Errorf("after the stop %+v; expected all %d back", d, 2*n)
	}
}

// TestParkedJobsMakeRoomForOthers parks more than there is room for beside the window; when the first have run, the rest
// must not block it.
func TestParkedJobsMakeRoomForOthers(t *testing.T) {
	t.Parallel()
	p := newParking(&Worker{window: newWindow(8, 1)})
	soon, late := time.Now(), time.Now().Add(time.Hour)
	for i := range maxParked + 8 {
		p.w.window.take(1)
		eta := soon
		if i >= maxParked {
			eta = late
		}
		p.park(&job{}, eta)
	}
	if p.w.window.held != 8 || p.outside != maxParked {
		t.Fatalf("%d held, %d outside", p.w.window.held, p.outside)
	}
	due, _, freed := p.due(time.Now())
	if len(due) != maxParked || len(freed) != 8 || p.outside != 8 {
		t.Errorf("%d due, %d freed, %d outside; expected %d, 8 and 8", len(due), len(freed), p.outside, maxParked)
	}
}

func TestUndecodableWithAnIDFails(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Concurrency: 1})
	id := protocol.NewID()
	s.raw(func(m *protocol.Message) { m.Headers.ID = id; header("task", "5")(m) })
	if e := s.failure(s.client.Result(id)); e.Type == "" {
		t.Error(e)
	}
	s.settled()
}
