package task

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// TestBackoff compares with what get_exponential_backoff_interval of Celery 5.6 returns.
func TestBackoff(t *testing.T) {
	t.Parallel()
	all := func(n int64) int64 { return n - 1 } // the largest of what a jitter may give
	for _, c := range []struct {
		policy RetryPolicy
		want   []int // seconds for retries 0, 1, 2, …
	}{
		{RetryPolicy{Backoff: time.Second}, []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600}},
		{RetryPolicy{Backoff: 5 * time.Second}, []int{5, 10, 20, 40, 80, 160, 320, 600, 600}},
		{RetryPolicy{Backoff: 100 * time.Millisecond, BackoffMax: 3 * time.Second}, []int{1, 2, 3, 3}},
		{RetryPolicy{Backoff: 2900 * time.Millisecond, BackoffMax: 9900 * time.Millisecond}, []int{2, 4, 8, 9, 9}},
		{RetryPolicy{Backoff: 700 * time.Second}, []int{600, 600}},
	} {
		for retries, want := range c.want {
			for _, c.policy.NoJitter = range []bool{true, false} {
				if d, own := c.policy.delay(retries, all); !own || d != time.Duration(want)*time.Second {
					t.Errorf("%v, retry %d: %v, %v; want %d s", c.policy, retries, d, own, want)
				}
			}
		}
		for _, retries := range []int{-1, 62, 63, 64, 1 << 30} {
			if d, _ := c.policy.delay(retries, all); d < 0 || d > 600*time.Second {
				t.Errorf("%v, retry %d: %v", c.policy, retries, d)
			}
		}
	}
	p := RetryPolicy{Backoff: time.Second}
	if d, own := p.delay(4, func(int64) int64 { return 0 }); d != 0 || !own {
		t.Errorf("a jitter of 0 gave %v, %v", d, own)
	}
	if d, own := (&RetryPolicy{Delay: time.Minute}).delay(4, nil); d != time.Minute || !own {
		t.Errorf("a fixed delay gave %v, %v", d, own)
	}
	if _, own := (&RetryPolicy{}).delay(4, nil); own {
		t.Error("a policy without a delay has one")
	}
}

func TestRetryPolicyWants(t *testing.T) {
	t.Parallel()
	busy := errors.New("busy")
	for _, c := range []struct {
		policy RetryPolicy
		err    error
		want   bool
	}{
		{RetryPolicy{On: []error{busy}}, fmt.Errorf("shop: %w", busy), true},
		{RetryPolicy{On: []error{busy}}, errors.New("busy"), false},
		{RetryPolicy{OnPython: []string{"Exception"}}, errors.New("any"), true},
		{RetryPolicy{OnPython: []string{"OSError"}}, context.DeadlineExceeded, true}, // stored as TimeoutError
		{RetryPolicy{OnPython: []string{"ValueError"}}, context.DeadlineExceeded, false},
		{RetryPolicy{OnPython: []string{"LookupError"}}, AsPython(busy, "builtins", "KeyError"), true},
		{RetryPolicy{OnPython: []string{"shop.errors.Busy"}}, AsPython(busy, "shop.errors", "Busy"), true},
		{RetryPolicy{OnPython: []string{"shop.errors.Busy"}}, AsPython(busy, "shop.errors", "Broke"), false},
		{RetryPolicy{OnPython: []string{"Exception"}, Except: []error{busy}}, fmt.Errorf("x: %w", busy), false},
		{RetryPolicy{OnPython: []string{"Exception"}, Except: []error{PyError("ValueError")}}, strconv.ErrSyntax, false},
	} {
		d, err := defineSettings("t", []DefineOption{c.policy})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.RetryPolicy.wants(c.err); got != c.want {
			t.Errorf("%v wants %v: %v", c.policy, c.err, got)
		}
	}
	if (*RetryPolicy)(nil).wants(busy) {
		t.Error("no policy wants a retry")
	}
}

func TestRetryPoliciesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	on := []error{errors.New("x")}
	for want, p := range map[string]RetryPolicy{
		"neither On nor OnPython": {Backoff: time.Second},
		"nil is none":             {On: []error{nil}},
		"a class is named":        {OnPython: []string{"Value Error"}},
		"not negative":            {On: on, Delay: -1},
		"only one of them":        {On: on, Delay: 1, Backoff: 1},
		"less than a second":      {On: on, BackoffMax: time.Millisecond},
	} {
		_, err := TryDefine[NoArgs, NoResult]("t", p)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "RetryPolicy{") {
			t.Errorf("%v: %v; want %q", p, err, want)
		}
	}
	if _, err := TryDefine[NoArgs, NoResult]("t", RetryDelay(-1)); err == nil {
		t.Error("a negative delay is accepted")
	}
}

// running is a task that runs, as it came in a message that change has had its hands on.
func running(t *testing.T, c *Client, change func(m *protocol.Message)) *Info {
	t.Helper()
	group := 2
	m := &protocol.Message{ContentType: "application/json", ContentEncoding: "utf-8",
		Body: []byte(`[ [1, "é"], {"k": 2.50},{"callbacks":[{"task":"next","args":[],"kwargs":{},"options":{},"immutable":false,"subtask_type":null}],"errbacks":null,"chain":null,"chord":null} ]`),
		Headers: protocol.Headers{Lang: "py", Task: "t", ID: "i", Shadow: "s", Group: "g", GroupIndex: &group, Retries: 1, RootID: "root",
			ParentID: "parent", ArgsRepr: "(secret)", KwargsRepr: "{}", Origin: "gen1@py", TimeLimit: protocol.TimeLimit{Hard: 3, Soft: 2},
			ETA: "2026-01-01T00:00:00+00:00", StampedHeaders: []string{"st"}, Stamps: map[string]json.RawMessage{"st": []byte(`1`)},
			Redelivered: true,
			Extra: []protocol.Header{{Name: "tenant", Value: []byte(`"a"`)}, {Name: "x-death", Value: []byte(`[]`)},
				{Name: "x-first-death-queue", Value: []byte(`"q"`)}, {Name: "x-last-death-reason", Value: []byte(`"q"`)},
				{Name: protocol.AttemptsHeader, Value: []byte(`3`)}, {Name: "x-delivery-count", Value: []byte(`3`)}}},
		Properties: protocol.Properties{CorrelationID: "c", ReplyTo: "r", DeliveryMode: 1, Priority: 7, DeliveryTag: "tag",
			DeliveryInfo: protocol.DeliveryInfo{RoutingKey: "orders", Redelivered: true}},
	}
	if change != nil {
		change(m)
	}
	accept, err := serialization.NewAccept("json", "pickle")
	if err != nil {
		t.Fatal(err)
	}
	r, err := protocol.DecodeRequest(m, accept)
	if err != nil {
		t.Fatal(err)
	}
	return &Info{Request: r, Queue: "received-from", Client: c}
}

// attempt is the next attempt with its request.
func attempt(t *testing.T, d *Defaults, info *Info, err error) (*Attempt, *protocol.Request) {
	t.Helper()
	next, err := d.NextAttempt(info, err)
	if next == nil {
		t.Fatalf("no retry: %v", err)
	}
	accept, err := serialization.NewAccept("json", "msgpack")
	if err != nil {
		t.Fatal(err)
	}
	r, err := protocol.DecodeRequest(next.Publication.Message, accept)
	if err != nil {
		t.Fatal(err)
	}
	return next, r
}

// TestRetryKeepsTheCall looks at a retry that changes nothing: what it keeps and what it counts on.
func TestRetryKeepsTheCall(t *testing.T) {
	t.Parallel()
	client, _ := probeClient(t, Config{})
	info := running(t, client, nil)
	before := time.Now()
	next, r := attempt(t, &Defaults{}, info, fmt.Errorf("wrapped: %w", Retry(AsPython(nil, "builtins", "KeyError", "nope"))))
	want := info.Request.Headers
	want.Retries, want.ETA, want.Redelivered, want.Extra = 2, r.ETA, false, want.Extra[:1]
	if diff := cmp.Diff(want, r.Headers); diff != "" {
		t.Error(diff)
	}
	if eta, ok := r.ETATime(); !ok || eta.Sub(before) < 180*time.Second-time.Millisecond || eta.Sub(before) > 190*time.Second {
		t.Errorf("eta %q is not in 180 s", r.ETA)
	}
	m := next.Publication.Message
	if !bytes.Equal(m.Body, []byte(`[ [1, "é"], {"k": 2.50},{"callbacks":[{"task":"next","args":[],"kwargs":{},"options":{},"immutable":false,"subtask_type":null}],"errbacks":null,"chain":null,"chord":null} ]`)) {
		t.Errorf("the body was written anew: %s", m.Body)
	}
	wantProperties := protocol.Properties{CorrelationID: "c", ReplyTo: "r", DeliveryMode: 1, Priority: 7,
		DeliveryInfo: protocol.DeliveryInfo{RoutingKey: "orders"}}
	if diff := cmp.Diff(wantProperties, m.Properties); diff != "" {
		t.Error(diff)
	}
	if p := next.Publication; p.Exchange != "" || p.RoutingKey != "orders" || p.Delay != 0 {
		t.Errorf("goes to %q %q after %v", p.Exchange, p.RoutingKey, p.Delay)
	}
	if next.Why != "Retry in 180s: KeyError('nope')" || ExceptionOf(next.Err).Type != "KeyError" {
		t.Errorf("%q, %v", next.Why, next.Err)
	}
	if info.Retries != 1 || len(info.Extra) != 6 {
		t.Error("the running task's own request was changed")
	}
}

// TestRetryOptions checks each option where it lands in the message.
func TestRetryOptions(t *testing.T) {
	t.Parallel()
	client, _ := probeClient(t, Config{Queues: []transport.Queue{{Name: "celery"}, {Name: "logs", Exchange: "logs", ExchangeType: "topic", RoutingKey: "log.#"}}})
	at := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.UTC)
	link := protocol.Signature{Task: "tasks.next", Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{}}
	for _, c := range []struct {
		opts []RetryOption
		want func(a *Attempt, r *protocol.Request) bool
	}{
		{[]RetryOption{Countdown(0)}, func(a *Attempt, r *protocol.Request) bool { return r.ETA == "" && a.Why == "Retry in 0s" }},
		{[]RetryOption{Countdown(-time.Hour)}, func(_ *Attempt, r *protocol.Request) bool { return r.ETA == "" }},
		{[]RetryOption{Countdown(1500 * time.Millisecond)}, func(a *Attempt, r *protocol.Request) bool {
			return r.ETA != "" && a.Why == "Retry in 1.5s"
		}},
		{[]RetryOption{ETA(at)}, func(a *Attempt, r *protocol.Request) bool {
			return r.ETA == "2030-01-02T03:04:05.000006+00:00" && a.Why == "Retry at 2030-01-02 03:04:05.000006+00:00"
		}},
		{[]RetryOption{RetryArgs(7, "x")}, func(_ *Attempt, r *protocol.Request) bool {
			return cmp.Equal(r.Args, []any{int64(7), "x"}) && r.ArgsRepr == "(7, 'x')" && r.KwargsRepr == "{}" &&
				len(r.Embed.Callbacks) == 1 && cmp.Equal(r.Kwargs, map[string]any{"k": 2.5})
		}},
		{[]RetryOption{RetryArgs(), RetryKwargs(map[string]any{"z": true})}, func(_ *Attempt, r *protocol.Request) bool {
			return len(r.Args) == 0 && r.ArgsRepr == "()" && r.KwargsRepr == "{'z': True}"
		}},
		{[]RetryOption{Queue("other")}, func(a *Attempt, _ *protocol.Request) bool {
			return a.Publication.Exchange == "" && a.Publication.RoutingKey == "other"
		}},
		{[]RetryOption{Queue("logs")}, func(a *Attempt, _ *protocol.Request) bool {
			return a.Publication.Exchange == "logs" && a.Publication.RoutingKey == "log.#"
		}},
		{[]RetryOption{Exchange("x"), RoutingKey("k")}, func(a *Attempt, _ *protocol.Request) bool {
			return a.Publication.Exchange == "x" && a.Publication.RoutingKey == "k"
		}},
		{[]RetryOption{Priority(2), Shadow("z"), TimeLimit(time.Minute), IgnoreResult(true), ReplyTo("q")}, func(_ *Attempt, r *protocol.Request) bool {
			return r.Properties.Priority == 2 && r.Shadow == "z" && r.TimeLimit == protocol.TimeLimit{Hard: 60, Soft: 2} &&
				*r.IgnoreResult && r.Properties.ReplyTo == "q"
		}},
		{[]RetryOption{Header("tenant", "b"), Header("more", 1)}, func(_ *Attempt, r *protocol.Request) bool {
			return len(r.Extra) == 2 && string(r.Extra[0].Value) == `"b"` && string(r.Extra[1].Value) == `1`
		}},
		{[]RetryOption{Stamp("st", 2), Stamp("new", 3)}, func(_ *Attempt, r *protocol.Request) bool {
			return cmp.Equal(r.StampedHeaders, []string{"st", "new"}) && string(r.Stamps["st"]) == "2" && string(r.Stamps["new"]) == "3"
		}},
		{[]RetryOption{Link(SignatureOf(link), SignatureOf(link))}, func(_ *Attempt, r *protocol.Request) bool { return len(r.Embed.Callbacks) == 2 }},
		{[]RetryOption{Expires(time.Hour), Countdown(time.Minute)}, func(_ *Attempt, r *protocol.Request) bool {
			ms, err := strconv.Atoi(r.Properties.Expiration)
			return r.Expires != "" && err == nil && ms > 3_590_000 && ms <= 3_600_000
		}},
		{[]RetryOption{Expires(time.Minute), Countdown(time.Hour)}, func(_ *Attempt, r *protocol.Request) bool {
			return r.Expires != "" && r.Properties.Expiration == "" // in the broker it would end unseen
		}},
		{[]RetryOption{Serializer("msgpack"), Compression("zlib")}, func(a *Attempt, r *protocol.Request) bool {
			return a.Publication.Message.ContentType == "application/x-msgpack" && r.Headers.Compression == "application/x-gzip" &&
				cmp.Equal(r.Args, []any{int64(1), "é"})
		}},
		{[]RetryOption{MaxRetries(-5)}, func(_ *Attempt, r *protocol.Request) bool { return r.Retries == 2 }},
	} {
		a, r := attempt(t, &Defaults{}, running(t, client, nil), Retry(nil, c.opts...))
		if !c.want(a, r) {
			t.Errorf("%v: %+v, %+v, %q", c.opts, a.Publication, r, a.Why)
		}
	}
}

// TestRetryGoesBack looks at messages of other shapes: where their retries go, and how they are written.
func TestRetryGoesBack(t *testing.T) {
	t.Parallel()
	quorum := Config{QueueType: "quorum", Queue: "orders"}
	for name, c := range map[string]struct {
		config Config
		change func(*protocol.Message)
		want   func(p transport.Publication, r *protocol.Request) bool
	}{
		"same exchange and key": {Config{}, func(m *protocol.Message) {
			m.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: "x", RoutingKey: "a.b"}
		}, func(p transport.Publication, _ *protocol.Request) bool {
			return p.Exchange == "x" && p.RoutingKey == "a.b"
		}},
		"no address": {Config{}, func(m *protocol.Message) { m.Properties.DeliveryInfo = protocol.DeliveryInfo{} },
			func(p transport.Publication, _ *protocol.Request) bool {
				return p.Exchange == "" && p.RoutingKey == "received-from"
			}},
		"delayed by the broker": {quorum, nil, func(p transport.Publication, r *protocol.Request) bool {
			return p.Delay > 170*time.Second && p.Delay <= 180*time.Second && r.ETA != ""
		}},
		"the first has no parent": {Config{}, func(m *protocol.Message) { m.Headers.ParentID = "" },
			func(_ transport.Publication, r *protocol.Request) bool {
				return r.ParentID == "i" && r.RootID == "root"
			}},
		"expires at the same time": {Config{}, func(m *protocol.Message) {
			m.Headers.Expires = protocol.FormatTime(time.Now().Add(time.Hour))
			m.Properties.Expiration = "99999999"
		}, func(_ transport.Publication, r *protocol.Request) bool {
			at, _ := r.ExpiresTime()
			ms, err := strconv.Atoi(r.Properties.Expiration)
			return time.Until(at) < time.Hour && err == nil && ms <= 3_600_000 && ms > 3_590_000
		}},
		"compressed": {Config{}, func(m *protocol.Message) {
			r := &protocol.Request{Headers: m.Headers, Args: []any{1}}
			c, err := r.Message(protocol.Encoding{Compression: "zstd"})
			if err != nil {
				panic(err)
			}
			m.Body, m.Headers.Compression = c.Body, c.Headers.Compression
		}, func(p transport.Publication, r *protocol.Request) bool {
			return p.Message.Headers.Compression == "application/zstd" && cmp.Equal(r.Args, []any{int64(1)})
		}},
		"protocol 1": {Config{}, func(m *protocol.Message) {
			m.Headers = protocol.Headers{}
			m.Body = []byte(`{"task": "t", "id": "i", "args": [1], "kwargs": {}, "retries": 1}`)
		}, func(p transport.Publication, r *protocol.Request) bool {
			return p.Message.Headers.Task == "" && r.Protocol == 1 && r.Retries == 2 && r.ETA != ""
		}},
	} {
		client, _ := probeClient(t, c.config)
		a, r := attempt(t, &Defaults{}, running(t, client, c.change), Retry(nil))
		if !c.want(a.Publication, r) {
			t.Errorf("%s: %+v, %+v", name, a.Publication, r)
		}
	}
}

func TestNoMoreRetries(t *testing.T) {
	t.Parallel()
	client, _ := probeClient(t, Config{})
	bad := errors.New("bad")
	two, none, forever := 2, 0, -1
	for _, c := range []struct {
		d     Defaults
		had   int
		err   error
		class string // "": it is retried
		text  string
	}{
		{Defaults{}, 2, Retry(bad), "", ""},
		{Defaults{}, 3, Retry(bad), "Exception", "bad"},
		{Defaults{MaxRetries: &two}, 1, Retry(bad), "", ""},
		{Defaults{MaxRetries: &two}, 2, Retry(bad), "Exception", "bad"},
		{Defaults{MaxRetries: &none}, 0, Retry(bad), "Exception", "bad"},
		{Defaults{MaxRetries: &forever}, 1 << 20, Retry(bad), "", ""},
		{Defaults{MaxRetries: &two}, 7, Retry(bad, MaxRetries(8)), "", ""},
		{Defaults{}, 8, Retry(bad, MaxRetries(8)), "Exception", "bad"},
		{Defaults{}, 3, Retry(nil), "MaxRetriesExceededError", "Can't retry t[i] args:(1, 'é') kwargs:{'k': 2.5}"},
		{Defaults{}, 0, Retry(bad, ID("other")), "Exception", `option ID("other"): a retry cannot change it`},
		{Defaults{}, 0, Retry(bad, Priority(999)), "Exception", "a priority is 0 to 255\nbad"},
		{Defaults{}, 0, Retry(nil, RetryArgs(make(chan int))), "Exception", "retry:"},
		{Defaults{}, 0, bad, "Exception", "bad"},
		{Defaults{RetryPolicy: &RetryPolicy{On: []error{bad}}}, 2, bad, "", ""},
		{Defaults{RetryPolicy: &RetryPolicy{On: []error{bad}}}, 3, bad, "Exception", "bad"},
		{Defaults{RetryPolicy: &RetryPolicy{On: []error{bad}, MaxRetries: 1}}, 1, bad, "Exception", "bad"},
		{Defaults{RetryPolicy: &RetryPolicy{On: []error{bad}, MaxRetries: -1}}, 99, bad, "", ""},
	} {
		info := running(t, client, func(m *protocol.Message) { m.Headers.Retries = c.had })
		next, err := c.d.NextAttempt(info, c.err)
		switch {
		case c.class == "":
			if next == nil {
				t.Errorf("%+v after %d retries, %v: %v", c.d, c.had, c.err, err)
			}
		case next != nil:
			t.Errorf("%+v after %d retries, %v: it is retried", c.d, c.had, c.err)
		default:
			x := ExceptionOf(err)
			if text := x.Args[0].(string); !strings.Contains(text, c.text) || c.class != "Exception" && x.Type != c.class {
				t.Errorf("%+v after %d retries, %v: %v", c.d, c.had, c.err, x)
			}
		}
	}
}

// TestForward declares what the messages need; a queue that cannot be declared may be there nevertheless.
func TestForward(t *testing.T) {
	t.Parallel()
	p := &undeclarable{}
	client, err := NewClient(p, nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, _ := attempt(t, &Defaults{}, running(t, client, nil), Retry(nil))
	if err := client.Forward(ctx, []transport.Publication{a.Publication}); err != nil {
		t.Fatal(err)
	}
	if r, _ := p.last(t); r.ID != "i" || p.tried != "orders" {
		t.Errorf("%+v, declared %q", r, p.tried)
	}
	if none, err := NewClient(nil, nil, Config{}); err != nil || !errors.Is(none.Forward(ctx, nil), ErrNoBroker) {
		t.Error("forwarding without a broker")
	}
}

type undeclarable struct {
	probe
	tried string
}

func (p *undeclarable) Declare(_ context.Context, q transport.Queue) error {
	p.tried = q.Name
	return transport.ErrMismatch
}
