package monitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// capture runs a receiver until the test ends. When it returns, the receiver listens to the broker; what it hears comes over the
// channel.
func capture(t *testing.T, r *Receiver, tr transport.Transport, subscriptions int) <-chan []protocol.Event {
	t.Helper()
	woken := make(chan struct{}, 10)
	node(t, tr, "w1@h", func(q *protocol.PidboxRequest) any {
		if q.Method == "heartbeat" {
			woken <- struct{}{}
		}
		return nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	heard, done := make(chan []protocol.Event, 100), make(chan error, 1)
	go func() { done <- r.Capture(ctx, func(events []protocol.Event) { heard <- events }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Capture ended with %v", err)
		}
	})
	for range subscriptions { // each asks for heartbeats
		select {
		case <-woken:
		case <-deadline(t).Done():
			t.Fatal("the receiver does not listen")
		}
	}
	return heard
}

func tell(t *testing.T, tr transport.Transport, key, body string) {
	t.Helper()
	if err := tr.Broadcast(deadline(t), protocol.EventExchange, key, protocol.NewEventMessage("w1@h", []byte(body))); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, heard <-chan []protocol.Event) []protocol.Event {
	t.Helper()
	select {
	case events := <-heard:
		return events
	case <-deadline(t).Done():
		t.Fatal("no event came")
		return nil
	}
}

func TestReceiverHears(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	r, err := NewReceiver(tr, ReceiverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	heard := capture(t, r, tr, 1)
	for _, bad := range []string{``, `null`, `7`, `{`, `{}`, `{"type": 7}`, `[{"type": "task-started"}, 8]`, strings.Repeat("[", 100_000)} {
		tell(t, tr, "task.multi", bad)
	}
	tell(t, tr, "task.multi", `[]`)
	tell(t, tr, "worker.heartbeat", `{"type": "worker-heartbeat", "hostname": "w1@h", "clock": 40, "timestamp": 1795000000.5}`)
	tell(t, tr, "task.sent", `{"type": "task-sent", "hostname": "gen1@h", "clock": 99999, "uuid": "x"}`)
	tell(t, tr, "task.multi", `[{"type": "task-received", "hostname": "w1@h", "uuid": "x"}, {"type": "task-started", "uuid": "x", "clock": 7}]`)
	var got []string
	for range 4 {
		for _, e := range next(t, heard) {
			got = append(got, fmt.Sprint(e.Type, " ", e.Hostname, " ", e.Clock))
		}
	}
	want := "task-started w1@h 1, worker-heartbeat w1@h 40, task-sent gen1@h 40, task-received w1@h 43, task-started w1@h 7"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("heard %s\nwant %s", s, want)
	}
	if r.Malformed() != 8 || r.Received() != 5 {
		t.Errorf("%d are malformed, %d received", r.Malformed(), r.Received())
	}
}

// flaky is a transport whose first subscriptions fail, and whose next ones break.
type flaky struct {
	transport.Transport
	fails, breaks int
}

type broken struct{ transport.Subscription }

func (b broken) Receive(context.Context) (transport.Delivery, error) {
	return transport.Delivery{}, transport.ErrClosed
}

func (f *flaky) Subscribe(ctx context.Context, exchange, pattern string) (transport.Subscription, error) {
	if f.fails > 0 {
		f.fails--
		return nil, errors.New("no")
	}
	s, err := f.Transport.Subscribe(ctx, exchange, pattern)
	if f.breaks > 0 && err == nil {
		f.breaks--
		return broken{s}, nil
	}
	return s, err
}

func TestReceiverResumes(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	r, err := NewReceiver(&flaky{tr, 2, 2}, ReceiverConfig{RoutingKey: "task.#"})
	if err != nil {
		t.Fatal(err)
	}
	heard := capture(t, r, tr, 3)
	tell(t, tr, "worker.online", `{"type": "worker-online"}`)
	tell(t, tr, "task.multi", `{"type": "task-started"}`)
	if events := next(t, heard); events[0].Type != protocol.TaskStarted {
		t.Errorf("heard %v", events)
	}
}

func TestReceiverConfig(t *testing.T) {
	t.Parallel()
	if _, err := NewReceiver(nil, ReceiverConfig{Accept: []string{"toml"}}); err == nil || !strings.Contains(err.Error(), "toml") {
		t.Errorf("an unknown serializer is refused with %v", err)
	}
}

// FuzzEvents: no message from anyone stops the receiver or the state.
func FuzzEvents(f *testing.F) {
	for _, body := range []string{
		`{"type": "worker-heartbeat", "hostname": "w1@h", "clock": 40, "timestamp": 1795000000.5, "freq": 2.0, "loadavg": [0.1, 0.2, 0.3]}`,
		`[{"type": "task-received", "hostname": "w1@h", "uuid": "x", "name": "t", "args": "()", "retries": 0, "eta": null}]`,
		`[{"type": "task-succeeded", "hostname": "w1@h", "uuid": "x", "result": "3", "runtime": 0.1}, {}]`,
		`{"type": "task-sent", "uuid": {"a": [1e999, NaN]}, "hostname": ["x"], "clock": 1e30, "timestamp": -Infinity}`, `[]`, ``, `[[[`,
	} {
		f.Add([]byte(body), "application/json", "utf-8", `"w1@h"`)
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, encoding, hostname string) {
		r, err := NewReceiver(nil, ReceiverConfig{Accept: []string{"json", "msgpack", "yaml"}})
		if err != nil {
			t.Fatal(err)
		}
		s, _ := cluster(t, StateConfig{MaxTasks: 10, MaxWorkers: 10, MaxText: 100})
		m := &protocol.Message{ContentType: contentType, ContentEncoding: encoding, Body: bytes.Clone(body)}
		m.Headers.Extra = []protocol.Header{{Name: "hostname", Value: []byte(hostname)}}
		for range 2 {
			s.Apply(r.read(&transport.Delivery{Message: m}))
		}
		for _, task := range s.Tasks(TaskQuery{}) {
			if task.ID == "" || task.State == "" || len(task.ID) > maxName || len(task.Args) > 110 || task.Phase == "" {
				t.Errorf("there is a task %+v", task)
			}
		}
		if totals := s.Totals(); totals.Tasks > 10 || totals.Workers > 10 || totals.Bytes < 0 {
			t.Errorf("totals are %+v", totals)
		}
	})
}
