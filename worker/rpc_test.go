package worker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	_ "github.com/gelery/gelery/backends/rpc"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestRPC has every way a result comes about travel to its client as a message.
func TestRPC(t *testing.T) {
	t.Parallel()
	client, err := task.Dial(t.Context(), task.Config{Broker: "memory://" + protocol.NewID(), Backend: "rpc://",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	s := &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
	Handle(s.mux, add, func(_ context.Context, a addArgs) (int, error) { return a.X + a.Y, nil })
	goOn := make(chan struct{})
	s.mux.Func("slow", func(ctx context.Context) (string, error) {
		if err := task.Progress(ctx, map[string]any{"at": 1}); err != nil {
			return "", err
		}
		<-goOn
		return "done", nil
	})
	s.mux.Func("fails", func(context.Context) error { return errors.New("broken") })
	// A message without a reply_to has no result, and is done nevertheless.
	s.raw(func(m *protocol.Message) { m.Properties.ReplyTo = "" })
	s.start(Config{Concurrency: 2, TrackStarted: true, ResultExtended: true})

	sum := s.send("tasks.add", 2, 3)
	if got, err := sum.Get(s.context()); err != nil || got != int64(5) {
		t.Errorf("got %v, %v", got, err)
	}
	var states []protocol.State
	for m, err := range s.send("slow").Watch(s.context()) {
		if err != nil {
			t.Fatal(err)
		}
		if states = append(states, m.Status); m.Status == task.StateProgress {
			close(goOn)
		}
	}
	if !slices.Contains(states, task.StateProgress) || states[len(states)-1] != protocol.Success {
		t.Errorf("states seen: %v", states)
	}
	if e := s.failure(s.send("fails")); e.Message != "broken" || e.Traceback == "" {
		t.Errorf("got %+v", e)
	}
	if e := s.failure(s.send("nobody.knows")); e.Type != "NotRegistered" { // which quarantine answers
		t.Errorf("got %+v", e)
	}
	expired, err := s.client.Send(s.context(), "slow", nil, nil, task.ExpiresAt(time.Now().Add(-time.Second)))
	if err != nil {
		t.Fatal(err)
	}
	if e := s.failure(expired); !errors.Is(e, task.ErrRevoked) {
		t.Errorf("got %+v", e)
	}
	s.settled()
}
