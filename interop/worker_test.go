package interop

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// runWorker runs a Go worker in this process, with tasks that look at their messages, and returns when it receives. It
// ends with stop, or with the test.
//
//	go.add(x, y)        the sum
//	go.carried(want)    {"equal", "got", "want"}: whether the custom headers are those of the argument
//	go.stamped(want)    the same of the stamps
//	go.when()           {"at", "eta"}: Unix seconds and the message's eta, as py.when tells them
//	py.touch(path)      adds the task's id to a ledger, as the Python worker does under that name
func runWorker(t testing.TB, config task.Config, queues ...string) (stop func()) {
	t.Helper()
	mux := worker.NewMux()
	mux.Func("go.add", func(_ context.Context, x, y int) (int, error) { return x + y, nil })
	mux.Func("go.carried", carried)
	mux.Func("go.stamped", stamped)
	mux.Func("go.when", tellsWhen)
	mux.Func("py.touch", func(ctx context.Context, path string) error {
		info, _ := task.FromContext(ctx)
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		_, err = f.WriteString(info.ID + "\n")
		return errors.Join(err, f.Close())
	})
	return runMux(t, config, mux, worker.Config{Queues: queues, Concurrency: 2})
}

// runMux runs a Go worker in this process, with the tasks of a mux, as runWorker does.
func runMux(t testing.TB, config task.Config, mux *worker.Mux, settings worker.Config) (stop func()) {
	t.Helper()
	client := connect(t, config)
	if settings.Logger == nil {
		settings.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	w, err := worker.New(client, mux, settings)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the Go worker: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-w.Consuming():
	case err := <-ended:
		ended <- err
		t.Fatalf("the Go worker ended: %v", err)
	case <-within(t).Done():
		t.Fatalf("the Go worker does not receive after %v", patience)
	}
	return stop
}

func tellsWhen(ctx context.Context) (map[string]any, error) {
	at := time.Now()
	info, _ := task.FromContext(ctx)
	return map[string]any{"at": float64(at.UnixMicro()) / 1e6, "eta": info.ETA}, nil
}

func carried(ctx context.Context, want map[string]any) (map[string]any, error) {
	info, _ := task.FromContext(ctx)
	got := map[string]any{}
	for _, h := range info.Extra {
		if _, asked := want[h.Name]; !asked {
			continue
		}
		v, err := serialization.DecodeJSON(h.Value)
		if err != nil {
			return nil, err
		}
		got[h.Name] = v
	}
	return verdict(want, got), nil
}

func stamped(ctx context.Context, want map[string]any) (map[string]any, error) {
	info, _ := task.FromContext(ctx)
	got := map[string]any{}
	for _, name := range info.StampedHeaders {
		v, err := serialization.DecodeJSON(info.Stamps[name])
		if err != nil {
			return nil, err
		}
		got[name] = v
	}
	return verdict(want, got), nil
}

func verdict(want, got map[string]any) map[string]any {
	return map[string]any{"equal": same(want, got), "got": short(got), "want": short(want)}
}
