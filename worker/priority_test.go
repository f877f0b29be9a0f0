package worker

import (
	"context"
	"log/slog"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// TestInheritParentPriority: what a task sends, and what follows it, has the priority of its message, but for what has its own.
func TestInheritParentPriority(t *testing.T) {
	t.Parallel()
	place := "memory://" + protocol.NewID()
	client, err := task.Dial(t.Context(), task.Config{Broker: place, Backend: place, InheritParentPriority: true,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	s := &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
	seen := make(chan [2]any, 4)
	s.mux.Func("child", func(ctx context.Context, who string) error {
		info, _ := task.FromContext(ctx)
		seen <- [2]any{who, info.Properties.Priority}
		return nil
	})
	s.mux.Func("parent", func(ctx context.Context) (string, error) {
		if _, err := client.Send(ctx, "child", []any{"sent"}, nil); err != nil {
			return "", err
		}
		_, err := client.Send(ctx, "child", []any{"sent with its own"}, nil, task.Priority(3))
		return "follows", err
	})
	s.start(Config{Concurrency: 1})
	s.sendWith("parent", task.Priority(6), task.Link(task.SignatureOf(protocol.Signature{Task: "child", Args: []any{}})))
	want := map[any]any{"sent": 6, "sent with its own": 3, "follows": 6}
	for range want {
		select {
		case got := <-seen:
			if want[got[0]] != got[1] {
				t.Errorf("%v: priority %v; want %v", got[0], got[1], want[got[0]])
			}
		case <-s.context().Done():
			t.Fatal("what follows did not run in time")
		}
	}
}
