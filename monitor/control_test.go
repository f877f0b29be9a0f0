package monitor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
	_ "github.com/gelery/gelery/transport/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// limit bounds every wait of a test.
const limit = 30 * time.Second

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// broker is a broker of the test's own.
func broker(t *testing.T) transport.Transport {
	t.Helper()
	tr, err := transport.Open(deadline(t), "memory://"+protocol.NewID(), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// node answers requests as a worker does, by what the function returns for each; nil: it does not.
func node(t *testing.T, tr transport.Transport, name string, answer func(*protocol.PidboxRequest) any) {
	t.Helper()
	ctx, cancel := context.WithCancel(deadline(t))
	heard, err := tr.Subscribe(ctx, protocol.PidboxExchange, "")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	go func() {
		defer close(done)
		defer heard.Close()
		for {
			d, err := heard.Receive(ctx)
			if err != nil {
				return
			}
			r, err := protocol.DecodePidbox(d.Message, serialization.Accept{})
			if err != nil {
				t.Errorf("the request: %v", err)
				return
			}
			v := answer(r)
			if v == nil || !r.WantsReply() {
				continue
			}
			m, err := protocol.NewPidboxReply(name, v, r.Ticket, 5, serialization.JSON)
			if err == nil {
				err = tr.Publish(ctx, []transport.Publication{{Message: m, Exchange: r.ReplyTo.Exchange, RoutingKey: r.ReplyTo.RoutingKey, Optional: true}})
			}
			if err != nil && ctx.Err() == nil {
				t.Errorf("reply: %v", err)
			}
		}
	}()
}

func control(t *testing.T, tr transport.Transport) *Control {
	t.Helper()
	c, err := NewControl(tr, ControlConfig{Timeout: limit})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAskAll(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	pong := map[string]any{"ok": "pong"}
	for _, name := range []string{"b@h", "a@h"} {
		node(t, tr, name, func(*protocol.PidboxRequest) any { return pong })
	}
	answers, err := control(t, tr).Limit(2).Ping(deadline(t))
	if err != nil || len(answers) != 2 || answers[0] != (Answer[string]{"a@h", "pong", nil}) || answers[1].Node != "b@h" {
		t.Errorf("the answers are %v, %v", answers, err)
	}
	// Nobody is left to wait for: only the timeout ends it.
	answers, err = control(t, tr).Within(50 * time.Millisecond).Ping(deadline(t))
	if err != nil || len(answers) > 2 {
		t.Errorf("the answers are %v, %v", answers, err)
	}
}

// Celery's timeout=0 does not wait; workers obey all the same.
func TestAskDoesNotWait(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	asked := make(chan protocol.PidboxRequest, 1)
	node(t, tr, "a@h", func(r *protocol.PidboxRequest) any {
		asked <- *r
		return nil
	})
	c := control(t, tr)
	if answers, err := c.Within(0).EnableEvents(deadline(t)); err != nil || len(answers) > 0 {
		t.Errorf("the answers are %v, %v", answers, err)
	}
	select {
	case r := <-asked:
		if r.Method != "enable_events" || !r.Expires.IsZero() || r.WantsReply() {
			t.Errorf("the request is %+v", r)
		}
	case <-deadline(t).Done():
		t.Fatal("the request did not come")
	}
	if _, err := c.Within(-time.Second).Ping(deadline(t)); err == nil || !strings.Contains(err.Error(), "timeout -1s is negative") {
		t.Errorf("a negative timeout is refused with %v", err)
	}
	if len(asked) > 0 {
		t.Error("what was refused was sent")
	}
}

func TestAskEndsWithItsDestinations(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	var asked protocol.PidboxRequest
	node(t, tr, "a@h", func(r *protocol.PidboxRequest) any {
		asked = *r
		return map[string]any{"error": "unknown task"}
	})
	answers, err := control(t, tr).To("a@h").RateLimit(deadline(t), "tasks.add", "10/s")
	if err != nil || len(answers) != 1 {
		t.Fatalf("the answers are %v, %v", answers, err)
	}
	if remote, ok := errors.AsType[*RemoteError](answers[0].Err); !ok || remote.Error() != "a@h: unknown task" {
		t.Errorf("the answer is %v", answers[0])
	}
	if asked.Method != "rate_limit" || asked.Destination[0] != "a@h" || asked.Arguments["rate_limit"] != "10/s" || asked.Clock == 0 ||
		asked.Expires.IsZero() {
		t.Errorf("the request is %+v", asked)
	}
}

func TestAskMatching(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	node(t, tr, "a@h", func(r *protocol.PidboxRequest) any { return map[string]any{"ok": r.Pattern + " " + r.Matcher} })
	for r, err := range control(t, tr).Matching("a*", "glob").Ask(deadline(t), "ping", nil) {
		if err != nil || As[string](r).Value != "a* glob" {
			t.Errorf("the reply is %v, %v", r, err)
		}
		break
	}
}

func TestAskEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	tr := broker(t)
	node(t, tr, "a@h", func(*protocol.PidboxRequest) any {
		cancel()
		return nil
	})
	if answers, err := control(t, tr).Ping(ctx); !errors.Is(err, context.Canceled) || len(answers) > 0 {
		t.Errorf("the answers are %v, %v", answers, err)
	}
}

// What is no reply to the request is left out, and another shape is the answer's error.
func TestAskBearsWhatIsNoReply(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	ctx := deadline(t)
	node(t, tr, "a@h", func(r *protocol.PidboxRequest) any {
		send := func(m *protocol.Message) {
			_ = tr.Publish(ctx, []transport.Publication{{Message: m, Exchange: r.ReplyTo.Exchange, RoutingKey: r.ReplyTo.RoutingKey, Optional: true}})
		}
		for _, body := range []string{``, `null`, `[]`, `7`, `{`, `{}`, `{"a": 1, "b": 2}`, strings.Repeat("[", 100_000)} {
			for _, kind := range []string{"application/json", "application/x-python-serialize", ""} {
				send(&protocol.Message{ContentType: kind, ContentEncoding: "utf-8", Body: []byte(body)})
			}
		}
		if m, err := protocol.NewPidboxReply("b@h", 7, "another", 1, serialization.JSON); err == nil {
			send(m)
		}
		return []any{"no", "stats"}
	})
	answers, err := control(t, tr).Limit(1).Stats(ctx)
	if err != nil || len(answers) != 1 || answers[0].Node != "a@h" || answers[0].Err == nil {
		t.Errorf("the answers are %v, %v", answers, err)
	}
}

func TestTypedAnswers(t *testing.T) {
	t.Parallel()
	tr := broker(t)
	info := map[string]any{"id": "x", "name": "tasks.add", "type": "tasks.add", "args": []any{1}, "kwargs": map[string]any{}, "hostname": "a@h",
		"time_start": nil, "acknowledged": true, "worker_pid": nil, "delivery_info": map[string]any{"exchange": "", "routing_key": "q", "priority": nil}}
	node(t, tr, "a@h", func(r *protocol.PidboxRequest) any {
		switch r.Method {
		case "stats":
			return map[string]any{"total": map[string]any{"tasks.add": 3}, "pid": 7, "clock": "16", "uptime": 2, "prefetch_count": 8,
				"pool": map[string]any{"max-concurrency": 4, "processes": []any{7, 8}, "max-tasks-per-child": "N/A", "timeouts": []any{0, 0}}}
		case "active":
			return []any{info}
		case "scheduled":
			return []any{map[string]any{"eta": "2026-01-01T00:00:00+00:00", "priority": 6, "request": info}}
		case "query_task":
			return map[string]any{"x": []any{"active", info}}
		case "active_queues":
			return []any{map[string]any{"name": "celery", "exchange": map[string]any{"name": "celery", "type": "direct"}, "queue_arguments": nil}}
		case "clock":
			return map[string]any{"clock": 5}
		case "registered":
			return []any{"tasks.add [rate_limit=1/s]"}
		case "memsample":
			return map[string]any{"ok": nil}
		}
		return nil
	})
	ctx, c := deadline(t), control(t, tr).To("a@h")
	if a, err := c.Stats(ctx); err != nil || a[0].Err != nil || a[0].Value.Total["tasks.add"] != 3 || *a[0].Value.Pool.MaxConcurrency != 4 {
		t.Errorf("stats are %v, %v", a, err)
	}
	if a, err := c.Active(ctx); err != nil || a[0].Err != nil || a[0].Value[0].ID != "x" || a[0].Value[0].TimeStart != nil {
		t.Errorf("active are %v, %v", a, err)
	}
	if a, err := c.Scheduled(ctx); err != nil || a[0].Err != nil || a[0].Value[0].Request.Name != "tasks.add" {
		t.Errorf("scheduled are %v, %v", a, err)
	}
	if a, err := c.QueryTask(ctx, "x"); err != nil || a[0].Err != nil || a[0].Value["x"].State != "active" || a[0].Value["x"].Request.ID != "x" {
		t.Errorf("the queried are %v, %v", a, err)
	}
	if a, err := c.ActiveQueues(ctx); err != nil || a[0].Err != nil || *a[0].Value[0].Exchange.Type != "direct" {
		t.Errorf("queues are %v, %v", a, err)
	}
	if a, err := c.Clock(ctx); err != nil || a[0].Err != nil || a[0].Value.Clock != 5 {
		t.Errorf("clocks are %v, %v", a, err)
	}
	if a, err := c.Registered(ctx, "rate_limit"); err != nil || a[0].Err != nil || len(a[0].Value) != 1 {
		t.Errorf("registered are %v, %v", a, err)
	}
	if a, err := c.Memsample(ctx); err != nil || a[0].Err != nil || a[0].Value != nil {
		t.Errorf("memory is %v, %v", a, err)
	}
}

func TestControlConfig(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]ControlConfig{"xml": {Serializer: "xml"}, "negative": {Timeout: -1}, "toml": {Accept: []string{"toml"}}} {
		if _, err := NewControl(nil, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v is refused with %v", c, err)
		}
	}
}
