package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

type addArgs struct {
	X int `task:"x"`
	Y int `task:"y"`
}

var add = Define[addArgs, int]("tasks.add")

// TestSendPlain reads the message of the simplest call: what Python writes for add.delay(2, 3), but for lang.
func TestSendPlain(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	res, err := add.Send(t.Context(), client, addArgs{2, 3})
	if err != nil {
		t.Fatal(err)
	}
	r, pub := p.last(t)
	id := res.ID()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want := protocol.Headers{
		Lang: "go", Task: "tasks.add", ID: id, RootID: id, ArgsRepr: "(2, 3)", KwargsRepr: "{}",
		Origin: "gen" + strconv.Itoa(os.Getpid()) + "@" + host,
	}
	if diff := cmp.Diff(want, r.Headers); diff != "" {
		t.Error(diff)
	}
	props := protocol.Properties{
		CorrelationID: id, ReplyTo: client.replyTo, DeliveryMode: 2,
		DeliveryInfo: protocol.DeliveryInfo{RoutingKey: "celery"},
	}
	if diff := cmp.Diff(props, pub.Message.Properties); diff != "" {
		t.Error(diff)
	}
	body := strings.ReplaceAll(string(pub.Message.Body), " ", "")
	if body != `[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]` {
		t.Error(body)
	}
	if pub.Exchange != "" || pub.RoutingKey != "celery" {
		t.Errorf("went to %q %q", pub.Exchange, pub.RoutingKey)
	}
	if diff := cmp.Diff([]transport.Queue{named("celery")}, p.declared); diff != "" {
		t.Error(diff)
	}
	if _, err := add.Send(t.Context(), client, addArgs{}); err != nil || len(p.declared) != 1 {
		t.Errorf("declared %d times, %v", len(p.declared), err)
	}
}

// TestSendOptions checks each option where it lands in the message.
func TestSendOptions(t *testing.T) {
	t.Parallel()
	eta := time.Date(2030, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 7200))
	yes := true
	zero := 0
	next := protocol.Signature{Task: "tasks.next", Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{}}
	tests := []struct {
		opt  SendOption
		text string
		want func(r *protocol.Request) // applied to a plain request
	}{
		{Priority(9), "Priority(9)", func(r *protocol.Request) { r.Properties.Priority = 9 }},
		{ETA(eta), "ETA(2030-01-02T03:04:05.000006+02:00)", func(r *protocol.Request) { r.ETA = "2030-01-02T01:04:05.000006+00:00" }},
		{PublishTimeout(time.Minute), "PublishTimeout(1m0s)", func(*protocol.Request) {}},
		{Countdown(0), "Countdown(0s)", func(*protocol.Request) {}},
		{Shadow("s"), `Shadow("s")`, func(r *protocol.Request) { r.Shadow = "s" }},
		{TimeLimit(90 * time.Second), "TimeLimit(1m30s)", func(r *protocol.Request) { r.TimeLimit.Hard = 90 }},
		{SoftTimeLimit(1500 * time.Millisecond), "SoftTimeLimit(1.5s)", func(r *protocol.Request) { r.TimeLimit.Soft = 1.5 }},
		{IgnoreResult(true), "IgnoreResult(true)", func(r *protocol.Request) { r.IgnoreResult = &yes }},
		{ReplyTo("q"), `ReplyTo("q")`, func(r *protocol.Request) { r.Properties.ReplyTo = "q" }},
		{Transient(), "Transient()", func(r *protocol.Request) { r.Properties.DeliveryMode = 1 }},
		{Retries(2), "Retries(2)", func(r *protocol.Request) { r.Retries = 2 }},
		{GroupID("g", 0), "GroupID({g 0})", func(r *protocol.Request) { r.Group, r.GroupIndex = "g", &zero }},
		{RootID("r"), `RootID("r")`, func(r *protocol.Request) { r.RootID = "r" }},
		{ParentID("p"), `ParentID("p")`, func(r *protocol.Request) { r.ParentID = "p" }},
		{Link(SignatureOf(next)), "Link(tasks.next)", func(r *protocol.Request) { r.Embed.Callbacks = []protocol.Signature{next} }},
		{LinkError(SignatureOf(next)), "LinkError(tasks.next)", func(r *protocol.Request) { r.Embed.Errbacks = []protocol.Signature{next} }},
		{Serializer("msgpack"), `Serializer("msgpack")`, func(*protocol.Request) {}},
		{Compression("zstd"), `Compression("zstd")`, func(r *protocol.Request) { r.Compression = "application/zstd" }},
		{Header("tenant", 5), "Headers(map[tenant:5])", func(r *protocol.Request) {
			r.Extra = []protocol.Header{{Name: "tenant", Value: json.RawMessage("5")}}
		}},
		{Stamp("s", []int{1}), "Stamp({s [1]})", func(r *protocol.Request) {
			r.StampedHeaders, r.Stamps = []string{"s"}, map[string]json.RawMessage{"s": json.RawMessage("[1]")}
		}},
		{ExpiresAt(eta), "ExpiresAt(2030-01-02T03:04:05.000006+02:00)", func(r *protocol.Request) { r.Expires = "2030-01-02T01:04:05.000006+00:00" }},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			if tt.opt.String() != tt.text {
				t.Errorf("String() is %s", tt.opt)
			}
			client, p := probeClient(t, Config{})
			if _, err := client.Send(t.Context(), "tasks.add", nil, nil, ID("id-1")); err != nil {
				t.Fatal(err)
			}
			want, _ := p.last(t)
			if _, err := client.Send(t.Context(), "tasks.add", nil, nil, ID("id-1"), tt.opt); err != nil {
				t.Fatal(err)
			}
			got, _ := p.last(t)
			tt.want(want)
			got.Properties.Expiration = ""
			if diff := cmp.Diff(want.Headers, got.Headers); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(want.Properties, got.Properties); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(want.Embed, got.Embed); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSendTimes checks what is counted from now.
func TestSendTimes(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	before := time.Now().Truncate(time.Microsecond)
	_, err := client.Send(t.Context(), "t", nil, nil, Countdown(time.Minute), Expires(time.Hour))
	after := time.Now()
	if err != nil {
		t.Fatal(err)
	}
	r, _ := p.last(t)
	if eta, ok := r.ETATime(); !ok || eta.Before(before.Add(time.Minute)) || eta.After(after.Add(time.Minute)) {
		t.Errorf("eta %q", r.ETA)
	}
	if at, ok := r.ExpiresTime(); !ok || at.Before(before.Add(time.Hour)) || at.After(after.Add(time.Hour)) {
		t.Errorf("expires %q", r.Expires)
	}
	if r.Properties.Expiration != "3600000" {
		t.Errorf("expiration %q", r.Properties.Expiration)
	}
	// A time that has passed is sent, as Python sends it.
	if _, err := client.Send(t.Context(), "t", nil, nil, ExpiresAt(before.Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	if r, _ := p.last(t); r.Properties.Expiration != "0" {
		t.Errorf("expiration %q", r.Properties.Expiration)
	}
}

func TestSendRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		want string
		opts []SendOption
	}{
		{"option Countdown(-1s): the duration is negative", []SendOption{Countdown(-time.Second)}},
		{"option Priority(-1): a priority is 0 to 255", []SendOption{Priority(-1)}},
		{`option Queue(""): it is empty`, []SendOption{Queue("")}},
		{"option Expires(0s): the duration must be positive", []SendOption{Expires(0)}},
		{"option PublishTimeout(0s): the duration must be positive", []SendOption{PublishTimeout(0)}},
		{"option PublishTimeout(-1s): the duration must be positive", []SendOption{PublishTimeout(-time.Second)}},
		{`option Serializer("pickle")`, []SendOption{Serializer("pickle")}},
		{`serializer "xml" is unknown; known: json`, []SendOption{Serializer("xml")}},
		{`option ID("")`, []SendOption{ID("")}},
		{"the time is zero", []SendOption{ETA(time.Time{})}},
		{"1 to 9999", []SendOption{ETA(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC))}},
		{`"task" is not a name for a custom header`, []SendOption{Header("task", "evil")}},
		{`header "x"`, []SendOption{Header("x", make(chan int))}},
		{`header "x"`, []SendOption{Header("x", []any{map[string]any{"__type__": "mine", "__value__": 1}})}},
		{"names no task", []SendOption{Link(Signature{})}},
		{"soft time limit 2s is longer than the time limit 1s", []SendOption{TimeLimit(time.Second), SoftTimeLimit(2 * time.Second)}},
		{`exchange "e" without a routing key`, []SendOption{Exchange("e")}},
		{"nope", []SendOption{Compression("nope")}},
	}
	for _, tt := range tests {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			client, p := probeClient(t, Config{})
			_, err := client.Send(t.Context(), "tasks.add", nil, nil, tt.opts...)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "tasks.add") {
				t.Errorf("got %v", err)
			}
			if len(p.published) > 0 {
				t.Error("it was sent")
			}
		})
	}
	client, _ := probeClient(t, Config{})
	if _, err := client.Send(t.Context(), "", nil, nil); err == nil {
		t.Error("a task without a name was sent")
	}
	if _, err := client.Send(t.Context(), "t", []any{make(chan int)}, nil); err == nil {
		t.Error("a channel was sent")
	}
}

// TestDefaultsYield: the call wins over the task, the task over the configuration.
func TestDefaultsYield(t *testing.T) {
	t.Parallel()
	def := Define[NoArgs, any]("t", Priority(3), Queue("mine"), Expires(time.Minute), IgnoreResult(true), TimeLimit(time.Minute))
	client, p := probeClient(t, Config{Compression: "zstd"})
	if _, err := def.Send(t.Context(), client, NoArgs{}); err != nil {
		t.Fatal(err)
	}
	r, pub := p.last(t)
	if r.Properties.Priority != 3 || pub.RoutingKey != "mine" || r.Properties.Expiration != "60000" ||
		!*r.IgnoreResult || r.TimeLimit.Hard != 60 || r.Compression != "application/zstd" {
		t.Errorf("the task's defaults are lost: %+v", r)
	}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	_, err := def.Send(t.Context(), client, NoArgs{}, Priority(0), Queue("other"), ExpiresAt(at), IgnoreResult(false),
		TimeLimit(time.Second), Compression("gzip"))
	if err != nil {
		t.Fatal(err)
	}
	r, pub = p.last(t)
	if r.Properties.Priority != 0 || pub.RoutingKey != "other" || r.Expires != "2030-01-01T00:00:00.000000+00:00" ||
		*r.IgnoreResult || r.TimeLimit.Hard != 1 || r.Compression != "application/x-gzip" {
		t.Errorf("the call's options are lost: %+v", r)
	}
}

// TestLineage: message-protocol, who sets root_id and parent_id.
func TestLineage(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	info := &Info{Request: &protocol.Request{Headers: protocol.Headers{ID: "me", RootID: "root"}}}
	ctx := NewContext(t.Context(), info)
	send := func(opts ...SendOption) (root, parent string) {
		t.Helper()
		if _, err := client.Send(ctx, "t", nil, nil, opts...); err != nil {
			t.Fatal(err)
		}
		r, _ := p.last(t)
		return r.RootID, r.ParentID
	}
	if root, parent := send(ID("a")); root != "root" || parent != "me" {
		t.Errorf("got %s, %s", root, parent)
	}
	if root, parent := send(ID("b"), RootID("x")); root != "x" || parent != "me" {
		t.Errorf("got %s, %s", root, parent)
	}
	info.RootID = "" // an old producer's message
	if root, parent := send(ID("c"), ParentID("y")); root != "me" || parent != "y" {
		t.Errorf("got %s, %s", root, parent)
	}
	want := []protocol.ResultTuple{{ID: "a"}, {ID: "b"}, {ID: "c"}}
	if diff := cmp.Diff(want, info.Children()); diff != "" {
		t.Error(diff)
	}
	p.err = errors.New("down")
	if _, err := client.Send(ctx, "t", nil, nil); err == nil || len(info.Children()) != 3 {
		t.Errorf("a call that was not sent is a child: %v", err)
	}
}

func TestSendBatch(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	results, err := client.SendBatch(t.Context(), []Call{
		add.Call(addArgs{1, 2}, ID("a")), {Name: "py.x", Options: []SendOption{Queue("q"), ID("b")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != 2 || results[0].ID() != "a" || results[1].ID() != "b" || len(p.published) != 1 {
		t.Errorf("results %v in %d round trips", results, len(p.published))
	}
	if _, err := client.SendBatch(t.Context(), []Call{add.Call(addArgs{}), {Name: "t", Options: []SendOption{Queue("")}}}); err == nil ||
		!strings.Contains(err.Error(), "call 1") || len(p.published) != 1 {
		t.Errorf("half a batch was sent: %v", err)
	}
	typed, err := add.SendBatch(t.Context(), client, make([]addArgs, 3))
	if err != nil || len(typed) != 3 || len(p.published[1]) != 3 {
		t.Errorf("got %v, %v", typed, err)
	}
	if none, err := client.SendBatch(t.Context(), nil); len(none) != 0 || err != nil || len(p.published) != 2 {
		t.Errorf("an empty batch: %v, %v", none, err)
	}
}

// TestPublishTimeout: a call's own bound wins over the configured one, and the context's deadline over both.
func TestPublishTimeout(t *testing.T) {
	t.Parallel()
	soon, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	short, long, plain := Call{Name: "t", Options: []SendOption{PublishTimeout(time.Minute)}},
		Call{Name: "t", Options: []SendOption{PublishTimeout(time.Hour)}}, Call{Name: "t"}
	tests := []struct {
		name  string
		ctx   context.Context
		calls []Call
		want  time.Duration // 0: the context's deadline
	}{
		{"none", t.Context(), []Call{plain}, 5 * time.Minute},
		{"shorter", t.Context(), []Call{short}, time.Minute},
		{"longer", t.Context(), []Call{long}, time.Hour},
		{"batch", t.Context(), []Call{plain, long, short, long}, time.Minute},
		{"batch of one with and one without", t.Context(), []Call{long, plain}, time.Hour},
		{"context", soon, []Call{short}, 0},
	}
	for _, tt := range tests {
		client, p := probeClient(t, Config{PublishTimeout: 5 * time.Minute})
		before := time.Now()
		if _, err := client.SendBatch(tt.ctx, tt.calls); err != nil {
			t.Fatal(err)
		}
		earliest, latest := before.Add(tt.want), time.Now().Add(tt.want)
		if tt.want == 0 {
			earliest, _ = soon.Deadline()
			latest = earliest
		}
		if p.deadline.Before(earliest) || p.deadline.After(latest) {
			t.Errorf("%s: %v until the deadline", tt.name, p.deadline.Sub(before))
		}
	}
}

// TestPublishTimeoutEnds: a broker that does not answer is waited for no longer.
func TestPublishTimeoutEnds(t *testing.T) {
	t.Parallel()
	client, err := NewClient(&silent{}, nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add.Send(t.Context(), client, addArgs{}, PublishTimeout(time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestSignatureWithoutPublishTimeout: an option of Python's apply_async by a name it does not know ends up in the message.
func TestSignatureWithoutPublishTimeout(t *testing.T) {
	t.Parallel()
	sig, err := add.S(addArgs{}, PublishTimeout(time.Second)).Wire()
	if err != nil || len(sig.Options) != 0 {
		t.Errorf("options %v, %v", sig.Options, err)
	}
}

// TestNoBroker: a client that only reads results refuses to send, and does not crash.
func TestNoBroker(t *testing.T) {
	t.Parallel()
	client, err := NewClient(nil, nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := add.Send(t.Context(), client, addArgs{}); !errors.Is(err, ErrNoBroker) {
		t.Errorf("Send: %v", err)
	}
	if _, err := client.SendBatch(t.Context(), []Call{{Name: "t"}}); !errors.Is(err, ErrNoBroker) {
		t.Errorf("SendBatch: %v", err)
	}
	if _, err := client.Apply(t.Context(), S("t")); !errors.Is(err, ErrNoBroker) {
		t.Errorf("Apply: %v", err)
	}
	if _, err := Dial(t.Context(), Config{}); !errors.Is(err, ErrNoBroker) {
		t.Errorf("Dial: %v", err)
	}
	if err := client.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestInDoubt: the caller can tell a call that failed from one that may have been sent.
func TestInDoubt(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	p.err = &transport.PublishError{URL: "redis://h/0", InDoubt: true, Err: errors.New("EOF")}
	_, err := add.Send(t.Context(), client, addArgs{}, ID("id-1"))
	var failed *transport.PublishError
	if !errors.As(err, &failed) || !failed.InDoubt || !strings.Contains(err.Error(), "id-1") {
		t.Errorf("got %v", err)
	}
}

func TestProtocol1(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{Protocol: 1})
	if _, err := add.Send(t.Context(), client, addArgs{2, 3}); err != nil {
		t.Fatal(err)
	}
	r, _ := p.last(t)
	if r.Protocol != 1 || r.Task != "tasks.add" || fmt.Sprint(r.Args) != "[2 3]" {
		t.Errorf("got %+v", r)
	}
}

// TestSignature: a signature carries the options it was made with, through its wire form, to the message.
func TestSignature(t *testing.T) {
	t.Parallel()
	next := S("py.next", 1)
	opts := []SendOption{
		ID("id-1"), Queue("q"), Priority(4), TimeLimit(time.Minute), SoftTimeLimit(1500 * time.Millisecond), Link(next),
		LinkError(next), Header("tenant", "a"), Stamp("s", 1), IgnoreResult(true), ReplyTo("r"), Shadow("sh"), Retries(1),
		GroupID("g", 2), RootID("ro"), ParentID("pa"), Transient(), Serializer("yaml"), Compression("gzip"),
		ETA(time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)), ExpiresAt(time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC)),
	}
	sig, err := add.S(addArgs{1, 2}, opts...).Wire()
	if err != nil {
		t.Fatal(err)
	}
	back, err := protocol.SignatureFromValue(sig.Value())
	if err != nil {
		t.Fatal(err)
	}
	client, p := probeClient(t, Config{})
	if _, err := add.Send(t.Context(), client, addArgs{1, 2}, opts...); err != nil {
		t.Fatal(err)
	}
	want, _ := p.last(t)
	if _, err := client.Apply(t.Context(), SignatureOf(back)); err != nil {
		t.Fatal(err)
	}
	got, pub := p.last(t)
	want.Properties.Expiration, got.Properties.Expiration = "", "" // counted from now
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(protocol.Request{})); diff != "" {
		t.Error(diff)
	}
	if pub.RoutingKey != "q" || pub.Message.ContentType != "application/x-yaml" {
		t.Errorf("went to %q as %s", pub.RoutingKey, pub.Message.ContentType)
	}
}

// TestSignatureFromPython reads options as Celery writes them into messages.
func TestSignatureFromPython(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{})
	step := map[string]any{"task": "py.x", "args": []any{}, "kwargs": map[string]any{}, "options": map[string]any{}}
	before := time.Now()
	_, err := client.Apply(t.Context(), SignatureOf(protocol.Signature{Task: "t", Options: map[string]any{
		"task_id": "id-1", "root_id": nil, "countdown": 10.0, "eta": "2030-01-02T03:04:05", "expires": int64(60), "link": step,
		"chain": []any{step, step}, "chord": step, "headers": map[string]any{"id": "stale", "x": int64(1)},
		"unknown": int64(1), "replaced_task_nesting": int64(2), "delivery_mode": "transient",
	}}), Priority(2))
	if err != nil {
		t.Fatal(err)
	}
	r, _ := p.last(t)
	if r.ID != "id-1" || r.RootID != "id-1" || r.Properties.Expiration != "60000" || len(r.Embed.Callbacks) != 1 ||
		len(r.Embed.Chain) != 2 || r.Embed.Chord == nil || r.ReplacedTaskNesting != 2 || r.Properties.DeliveryMode != 1 ||
		len(r.Extra) != 1 || r.Properties.Priority != 2 {
		t.Errorf("got %+v", r)
	}
	if eta, ok := r.ETATime(); !ok || eta.Before(before.Add(9*time.Second)) || eta.After(time.Now().Add(11*time.Second)) {
		t.Errorf("eta %s: the countdown wins", r.ETA)
	}
	for name, bad := range map[string]any{"task_id": int64(1), "countdown": "soon", "eta": true, "link": "x", "priority": "high", "headers": "x"} {
		_, err := client.Apply(t.Context(), SignatureOf(protocol.Signature{Task: "t", Options: map[string]any{name: bad}}))
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s %v: %v", name, bad, err)
		}
	}
	if _, err := client.Apply(t.Context(), SignatureOf(protocol.Signature{Task: "celery.chain", SubtaskType: "chain"})); err == nil {
		t.Error("a chain of nothing was sent")
	}
}

func BenchmarkPrepare(b *testing.B) {
	client, err := NewClient(&probe{}, nil, Config{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, now := b.Context(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		call := add.Call(addArgs{2, 3}, Queue("math"), Priority(3))
		if _, err := client.prepare(ctx, &call, now); err != nil {
			b.Fatal(err)
		}
	}
}
