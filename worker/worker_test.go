package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	_ "github.com/gelery/gelery/backends/memory"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	_ "github.com/gelery/gelery/transport/memory"
)

func TestMain(m *testing.M) {
	if IsChild() {
		os.Exit(childProgram()) // of the process pool of a test
	}
	if path := os.Getenv(parentNotes); path != "" {
		os.Exit(parentProgram(path))
	}
	goleak.VerifyTestMain(m)
}

type addArgs struct {
	X int `task:"x"`
	Y int `task:"y"`
}

var add = task.Define[addArgs, int]("tasks.add")

// site is a worker on a broker and a backend of its own, and a client of theirs.
type site struct {
	*testing.T
	client *task.Client
	mux    *Mux
	worker *Worker
	done   chan error
	stop   context.CancelFunc
}

// newSite prepares; start begins.
func newSite(t *testing.T) *site {
	place := "memory://" + protocol.NewID() // a new one also for the next round of -count
	client, err := task.Dial(t.Context(), task.Config{Broker: place, Backend: place,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{T: t, client: client, mux: NewMux(), done: make(chan error, 1)}
	Handle(s.mux, add, func(_ context.Context, a addArgs) (int, error) { return a.X + a.Y, nil })
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	return s
}

func (s *site) start(c Config) {
	s.Helper()
	w, err := New(s.client, s.mux, c)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.worker, s.stop = w, cancel
	go func() { s.done <- w.Run(ctx) }()
	s.Cleanup(func() { s.end() })
	select {
	case <-w.Consuming():
	case err := <-s.done:
		s.Fatalf("the worker ended: %v", err)
	}
}

// end stops the worker warm and returns what Run returned. Further calls do nothing.
func (s *site) end() error {
	s.stop()
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(30 * time.Second): // a thousand messages may have to go back, on a busy machine
		s.worker.Terminate()
		s.Error("the worker did not stop in 30 s")
		return <-s.done
	}
}

func (s *site) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	s.Cleanup(cancel)
	return ctx
}

func (s *site) send(name string, args ...any) *task.Result[any] {
	s.Helper()
	r, err := s.client.Send(s.context(), name, args, nil)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// failure waits for a task to fail and returns the exception.
func (s *site) failure(r *task.Result[any]) *task.Error {
	s.Helper()
	v, err := r.Get(s.context())
	e, ok := errors.AsType[*task.Error](err)
	if !ok {
		s.Fatalf("got %v, %v; expected a failure", v, err)
	}
	return e
}

func (s *site) depth() transport.Depth {
	s.Helper()
	d, err := s.client.Transport().(transport.Inspector).Depths(s.context(), []string{"celery"})
	if err != nil {
		s.Fatal(err)
	}
	return d[0]
}

func (s *site) quarantined() []transport.QuarantinedMessage {
	s.Helper()
	q, err := s.client.Transport().(transport.Inspector).Quarantined(s.context(), "celery", 100)
	if err != nil {
		s.Fatal(err)
	}
	return q
}

// settled waits until nothing is held: the broker is asked, the worker's stop is the event.
func (s *site) settled() {
	s.Helper()
	if err := s.end(); err != nil {
		s.Errorf("stop: %v", err)
	}
	if d := s.depth(); d.Messages != 0 || d.Unacked != 0 {
		s.Errorf("%d wait and %d are unacked; expected none", d.Messages, d.Unacked)
	}
}

func TestRunsTasks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Concurrency: 3})
	for i := range 50 {
		r, err := add.Send(s.context(), s.client, addArgs{i, 1})
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := r.Get(s.context()); sum != i+1 || err != nil {
			t.Fatalf("add(%d, 1) = %d, %v", i, sum, err)
		}
	}
	s.settled()
}

type rudeResult struct{}

func (rudeResult) MarshalJSON() ([]byte, error) { panic("rude result") }

type rudeError struct{}

func (rudeError) Error() string { panic("rude error") }

func TestFailuresOfAllKinds(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	handlers := map[string]func() (any, error){
		"error":       func() (any, error) { return nil, errors.New("plain") },
		"python":      func() (any, error) { return nil, task.AsPython(errors.New("bad"), "builtins", "ValueError", "bad", 42) },
		"panic":       func() (any, error) { panic("at the disco") },
		"nilmap":      func() (any, error) { m := map[string]map[string]int{}; m["a"]["x"] = 1; return nil, nil },
		"goexit":      func() (any, error) { runtime.Goexit(); return nil, nil },
		"unencodable": func() (any, error) { return make(chan int), nil },
		"ruderesult":  func() (any, error) { return rudeResult{}, nil },
		"rudeerror":   func() (any, error) { return nil, rudeError{} },
	}
	for name, fn := range handlers {
		s.mux.Register(task.Definition{Name: name, Handler: func(context.Context, *protocol.Request) (any, error) { return fn() }})
	}
	s.start(Config{Concurrency: 2})
	for name, want := range map[string][2]string{
		"error": {"", "plain"}, "python": {"ValueError", "bad"}, "panic": {"RuntimeError", "panic: at the disco"},
		"nilmap": {"RuntimeError", "assignment to entry in nil map"}, "goexit": {"RuntimeError", "Goexit"},
		"unencodable": {"EncodeError", "cannot be encoded"}, "ruderesult": {"RuntimeError", "rude result"}, "rudeerror": {"RuntimeError", "rude error"},
	} {
		// Twice each: the slot must survive.
		for range 2 {
			e := s.failure(s.send(name))
			if want[0] != "" && e.Type != want[0] || !strings.Contains(e.Error(), want[1]) {
				t.Errorf("%s failed with %s: %q; expected %v", name, e.Type, e.Error(), want)
			}
			if name == "nilmap" && !strings.Contains(e.Traceback, "worker_test.go") {
				t.Errorf("traceback of a panic: %s", e.Traceback)
			}
		}
	}
	if e := s.failure(s.send("tasks.add", 1)); e.Type != "TypeError" || !strings.Contains(e.Message, "missing 1 required positional argument: 'y'") {
		t.Errorf("unbindable arguments: %v", e)
	}
	s.settled()
}

func TestUnregisteredIsKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{})
	e := s.failure(s.send("no.such.task", 1))
	if !errors.Is(e, task.ErrNotRegistered) || e.Module != "celery.exceptions" {
		t.Errorf("failure is %v", e)
	}
	s.settled()
	if q := s.quarantined(); len(q) != 1 || !strings.Contains(q[0].Reason, "no.such.task") {
		t.Errorf("quarantine holds %+v", q)
	}
}

// raw publishes a message that no honest client makes.
func (s *site) raw(change func(*protocol.Message)) {
	s.Helper()
	m := &protocol.Message{Headers: protocol.Headers{Task: "tasks.add", ID: protocol.NewID()}, ContentType: "application/json",
		ContentEncoding: "utf-8", Body: []byte(`[[1, 2], {}, null]`)}
	change(m)
	if err := s.client.Transport().Publish(s.context(), []transport.Publication{{Message: m, RoutingKey: "celery"}}); err != nil {
		s.Fatal(err)
	}
}

func header(name, value string) func(*protocol.Message) {
	return func(m *protocol.Message) {
		m.Headers.Extra = append(m.Headers.Extra, protocol.Header{Name: name, Value: json.RawMessage(value)})
		m.Headers.Malformed = append(m.Headers.Malformed, name)
	}
}

func body(text string) func(*protocol.Message) {
	return func(m *protocol.Message) { m.Body = []byte(text) }
}

func TestPoisonIsQuarantined(t *testing.T) {
	t.Parallel()
	poison := map[string]func(*protocol.Message){
		"no id":              func(m *protocol.Message) { m.Headers.ID = "" },
		"id is a number":     header("id", "5"),
		"task is a number":   header("task", "5"),
		"retries is text":    header("retries", `"x"`),
		"timelimit":          header("timelimit", `"abc"`),
		"timelimit of one":   header("timelimit", `[1]`),
		"eta is empty":       header("eta", `""`),
		"eta is garbage":     func(m *protocol.Message) { m.Headers.ETA = "tomorrow" },
		"expires":            func(m *protocol.Message) { m.Headers.Expires = "soon" },
		"body is a number":   body("123"),
		"body is empty":      body(""),
		"body is null":       body("null"),
		"body of two":        body("[[], {}]"),
		"kwargs null":        body("[[], null, null]"),
		"kwargs a list":      body("[[], [], null]"),
		"args null":          body("[null, {}, null]"),
		"args an object":     body("[{}, {}, null]"),
		"callbacks a dict":   body(`[[], {}, {"callbacks": {}}]`),
		"callback no dict":   body(`[[], {}, {"callbacks": [5]}]`),
		"chord wrong":        body(`[[], {}, {"chord": 5}]`),
		"bad JSON":           body(`[[], {}, nul`),
		"deep":               body(`[[` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + `], {}, null]`),
		"10 MB of brackets":  body(strings.Repeat("[", 10<<20)),
		"yaml not accepted":  func(m *protocol.Message) { m.ContentType = "application/x-yaml" },
		"pickle":             func(m *protocol.Message) { m.ContentType = "application/x-python-serialize" },
		"charset":            func(m *protocol.Message) { m.ContentType = "application/json; charset=utf-8" },
		"no content type":    func(m *protocol.Message) { m.ContentType = "" },
		"text":               func(m *protocol.Message) { m.ContentType = "text/plain"; m.Headers.Task = "" },
		"unknown compressor": func(m *protocol.Message) { m.Headers.Compression = "application/x-snappy" },
		"bad compression":    func(m *protocol.Message) { m.Headers.Compression = "application/x-gzip" },
		"no task at all":     func(m *protocol.Message) { m.Headers.Task = ""; m.Body = []byte(`{"hello": "world"}`) },
		"v1 without id":      func(m *protocol.Message) { m.Headers = protocol.Headers{}; m.Body = []byte(`{"task": "tasks.add"}`) },
		"v1 kwargs": func(m *protocol.Message) {
			m.Headers = protocol.Headers{}
			m.Body = []byte(`{"task": "tasks.add", "id": "x", "kwargs": 5}`)
		},
	}
	s := newSite(t)
	s.start(Config{Concurrency: 1})
	for _, change := range poison {
		s.raw(change)
		if sum, err := s.send("tasks.add", 2, 3).Get(s.context()); err != nil || sum != int64(5) {
			t.Fatalf("the task behind a poisonous message: %v, %v", sum, err)
		}
	}
	s.settled()
	q := s.quarantined()
	if len(q) != len(poison) {
		for _, m := range q {
			t.Logf("quarantined: %s", m.Reason)
		}
		t.Errorf("%d are in quarantine; expected %d", len(q), len(poison))
	}
	for _, m := range q {
		if m.Reason == "" || len(m.Raw) == 0 {
			t.Errorf("quarantine holds %+v", m)
		}
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := protocol.NewID()
	s.raw(func(m *protocol.Message) {
		m.Headers.ID, m.Headers.Expires = id, protocol.FormatTime(time.Now().Add(-time.Second))
	})
	s.start(Config{})
	if e := s.failure(s.client.Result(id)); !errors.Is(e, task.ErrRevoked) || e.State != protocol.Revoked {
		t.Errorf("an expired task ended with %v in %s", e, e.State)
	}
	s.settled()
}

func TestETA(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var ran time.Time
	s.mux.Func("when", func(context.Context) (bool, error) { ran = time.Now(); return true, nil })
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
	far, err := s.client.Send(s.context(), "when", nil, nil, task.Countdown(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	due := time.Now().Add(300 * time.Millisecond)
	soon, err := s.client.Send(s.context(), "when", nil, nil, task.ETA(due))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := soon.Get(s.context()); err != nil {
		t.Fatal(err)
	}
	if ran.Before(due.Truncate(time.Microsecond)) {
		t.Errorf("ran %v early", due.Sub(ran))
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if state, _ := far.State(s.context()); state != protocol.Pending {
		t.Errorf("the task due in an hour is %s", state)
	}
	if d := s.depth(); d.Delayed != 1 || d.Unacked != 0 {
		t.Errorf("after the stop %+v; expected the task to be left with the broker", d)
	}
}

func TestIgnoreRejectAndAckEarly(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	rejected := 0
	s.mux.Func("ignore", func(context.Context) error { return task.Ignore })
	s.mux.Func("reject", func(context.Context) error { return task.Reject(errors.New("no"), false) })
	s.mux.Func("requeue", func(context.Context) error {
		if rejected++; rejected < 3 {
			return task.Reject(errors.New("later"), true)
		}
		return nil
	})
	// The task before may not be settled yet; this one is, before it runs, or the wait is in vain.
	limit := s.context()
	unacked := int64(-1)
	s.mux.Func("early", func(context.Context) error {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for limit.Err() == nil && unacked != 0 {
			d, err := s.client.Transport().(transport.Inspector).Depths(limit, []string{"celery"})
			if err != nil {
				return err
			}
			unacked = d[0].Unacked
			<-ticker.C
		}
		return nil
	}, task.AckEarly())
	s.start(Config{Concurrency: 1})
	ignored, refused := s.send("ignore"), s.send("reject")
	for _, name := range []string{"requeue", "early"} {
		if _, err := s.send(name).Get(s.context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.settled()
	if rejected != 3 || unacked != 0 {
		t.Errorf("ran %d times, %d unacked during an early acknowledged run; expected 3 and 0", rejected, unacked)
	}
	for _, r := range []*task.Result[any]{ignored, refused} {
		if state, err := r.State(s.context()); state != protocol.Pending {
			t.Errorf("state %s, %v; expected nothing stored", state, err)
		}
	}
}

func TestStatesAndInfo(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	goOn := make(chan struct{})
	s.mux.Func("slow", func(ctx context.Context) (string, error) {
		if err := task.Progress(ctx, map[string]any{"at": 1}); err != nil {
			return "", err
		}
		<-goOn
		info, _ := task.FromContext(ctx)
		return fmt.Sprint(info.ID != "", info.Queue, info.Hostname), nil
	})
	s.start(Config{Concurrency: 1, TrackStarted: true, Hostname: "me@here", ResultExtended: true})
	r := s.send("slow")
	var states []protocol.State
	for m, err := range r.Watch(s.context()) {
		if err != nil {
			t.Fatal(err)
		}
		if states = append(states, m.Status); m.Status == task.StateProgress {
			close(goOn)
		}
	}
	if last := states[len(states)-1]; last != protocol.Success {
		t.Errorf("states seen: %v", states)
	}
	m, err := r.Meta(s.context())
	if err != nil || m.Result != "trueceleryme@here" || m.Extended == nil || m.Extended.Name != "slow" || m.Extended.Worker != "me@here" {
		t.Errorf("meta is %+v, %v", m, err)
	}
	s.settled()
}

func TestWarmStop(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	s.mux.Func("hold", func(context.Context) error { begun <- struct{}{}; <-goOn; return nil })
	s.start(Config{Concurrency: 2})
	var results []*task.Result[any]
	for range 10 {
		results = append(results, s.send("hold"))
	}
	<-begun
	<-begun
	s.stop()
	close(goOn)
	if err := s.end(); err != nil {
		t.Errorf("warm stop returned %v", err)
	}
	done := 0
	for _, r := range results {
		if ok, _ := r.Ready(s.context()); ok {
			done++
		}
	}
	if d := s.depth(); done < 2 || d.Messages != int64(10-done) || d.Unacked != 0 {
		t.Errorf("%d are done and %+v is left; expected 10 together, none unacked", done, d)
	}
}

func TestMiddlewareOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var order []string
	for _, name := range []string{"outer", "inner"} {
		s.mux.Use(func(next task.Handler) task.Handler {
			return func(ctx context.Context, r *protocol.Request) (any, error) {
				order = append(order, name)
				return next(ctx, r)
			}
		})
	}
	s.start(Config{Concurrency: 1})
	if _, err := s.send("tasks.add", 1, 1).Get(s.context()); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(order) != "[outer inner]" {
		t.Errorf("middleware ran as %v", order)
	}
}

func TestBadConfig(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for want, c := range map[string]Config{
		"Concurrency": {Concurrency: -1}, "PrefetchMultiplier": {PrefetchMultiplier: -2}, "Queues": {Queues: []string{""}},
		"Hostname": {Hostname: "a b@c"}, "StopTimeout": {StopTimeout: -1},
	} {
		if _, err := New(s.client, s.mux, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; expected an error that names %s", c, err, want)
		}
	}
}

// TestServedQueues: without names a worker serves what is configured, as Celery's does.
func TestServedQueues(t *testing.T) {
	t.Parallel()
	no := false
	two := []transport.Queue{{Name: "a", RoutingKey: "k"}, {Name: "b", Exchange: "x"}}
	tests := []struct {
		name   string
		client task.Config
		names  []string
		want   []string // with exchange and key
	}{
		{"nothing configured", task.Config{}, nil, []string{"celery celery celery"}},
		{"the default queue", task.Config{Queue: "dq"}, nil, []string{"dq dq dq"}},
		{"all that are configured", task.Config{Queues: two}, nil, []string{"a celery k", "b x celery"}},
		{"some by name", task.Config{Queues: two}, []string{"new", "a"}, []string{"new new new", "a celery k"}},
		{"an unknown one", task.Config{Queues: two, CreateMissingQueues: &no}, []string{"a", "new"}, nil},
		{"an unknown default", task.Config{Queues: two, CreateMissingQueues: &no}, []string{"celery"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, err := task.NewClient(newSite(t).client.Transport(), nil, tt.client)
			if err != nil {
				t.Fatal(err)
			}
			w, err := New(client, NewMux(), Config{Queues: tt.names})
			if tt.want == nil {
				if !errors.Is(err, task.ErrUnknownQueue) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, q := range w.consumed() {
				got = append(got, q.Name+" "+q.Exchange+" "+q.RoutingKey)
			}
			if strings.Join(got, ", ") != strings.Join(tt.want, ", ") {
				t.Errorf("serves %q, want %q", got, tt.want)
			}
		})
	}
}
