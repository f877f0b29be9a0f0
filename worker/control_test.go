package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// mailbox asks workers by remote control and collects what they answer.
type mailbox struct {
	*site
	replies transport.Subscription
	key     string
}

func (s *site) mailbox() *mailbox {
	s.Helper()
	m := &mailbox{site: s, key: protocol.NewID()}
	var err error
	if m.replies, err = s.client.Transport().Subscribe(s.context(), protocol.PidboxReplyExchange, m.key); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = m.replies.Close() })
	return m
}

// request is a request that wants a reply.
func (m *mailbox) request(method string, arguments map[string]any) *protocol.PidboxRequest {
	return &protocol.PidboxRequest{Method: method, Arguments: arguments, Ticket: "ticket-of-" + method, Clock: 41,
		ReplyTo: protocol.PidboxReplyTo{Exchange: protocol.PidboxReplyExchange, RoutingKey: m.key}}
}

func (m *mailbox) broadcast(r *protocol.PidboxRequest) {
	m.Helper()
	message, err := r.Message(serialization.JSON)
	if err == nil {
		err = m.client.Transport().Broadcast(m.context(), protocol.PidboxExchange, "", message)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// answer is the next reply, which must be of the node.
func (m *mailbox) answer() any {
	m.Helper()
	return m.answerWithin(m.context())
}

func (m *mailbox) answerWithin(ctx context.Context) any {
	m.Helper()
	d, err := m.replies.Receive(ctx)
	if err != nil {
		m.Fatalf("no reply: %v", err)
	}
	v, err := serialization.Accept{}.Decode(d.Message.ContentType, d.Message.ContentEncoding, d.Message.Body)
	body, _ := v.(map[string]any)
	answer, found := body[m.worker.Hostname()]
	if err != nil || !found || len(body) != 1 {
		m.Fatalf("the reply is %v, %v", v, err)
	}
	headers := map[string]string{}
	for _, h := range d.Message.Headers.Extra {
		headers[h.Name] = string(h.Value)
	}
	if !strings.HasPrefix(headers["ticket"], `"ticket-of-`) || len(headers["clock"]) == 2 && headers["clock"] < "43" || d.Message.Properties.DeliveryMode != 1 {
		m.Errorf("the reply's headers are %v, %+v", headers, d.Message.Properties)
	}
	return answer
}

func (m *mailbox) ask(method string, arguments map[string]any) any {
	m.Helper()
	m.broadcast(m.request(method, arguments))
	return m.answer()
}

func (m *mailbox) want(method string, arguments map[string]any, want string) {
	m.Helper()
	if got := fmt.Sprint(m.ask(method, arguments)); got != want {
		m.Errorf("%s(%v) is answered with %s; expected %s", method, arguments, got, want)
	}
}

func TestControlReplies(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, _ := s.holding()
	s.start(Config{Concurrency: 2})
	m := s.mailbox()
	list := func(v ...any) []any { return v }
	type args = map[string]any
	r := s.send("hold")
	await(t, began, "the task")
	for _, tt := range []struct {
		method    string
		arguments args
		want      string
	}{
		{"ping", nil, "map[ok:pong]"},
		{"ping", args{"extra": 1}, "map[ok:pong]"},
		{"nosuchcommand", nil, "map[error:KeyError('nosuchcommand')]"},
		{"revoke", args{"task_id": "deadbeef"}, "map[ok:tasks {'deadbeef'} flagged as revoked]"},
		{"revoke", args{"task_id": list("a", "it's", "a")}, `map[ok:tasks {'a', "it's"} flagged as revoked]`},
		{"revoke", args{"task_id": "x", "terminate": true}, "map[ok:terminate: tasks unknown]"},
		{"revoke", nil, "map[error:TypeError(\"revoke() missing 1 required positional argument: 'task_id'\")]"},
		{"revoke", args{"task_id": 7}, "map[error:TypeError('revoke: task_id holds what is no text: 7')]"},
		{"revoke", args{"task_id": "x", "terminate": true, "signal": "SIGNOSIG"},
			"map[error:AttributeError(\"module 'signal' has no attribute 'SIGNOSIG'\")]"},
		{"revoke", args{"task_id": "x", "signal": list()}, "map[error:TypeError('signal name must be uppercase string.')]"},
		{"terminate", args{"task_id": list(r.ID()), "signal": "KILL"}, "map[ok:terminate: " + r.ID() + "]"},
		{"terminate", args{"task_id": "x", "signal": 9}, "map[ok:terminate: tasks unknown]"},
		{"revoke_by_stamped_headers", args{"headers": args{"k": "v"}}, "map[ok:headers {'k': 'v'} flagged as revoked, but not terminated]"},
		{"revoke_by_stamped_headers", args{"headers": list("k=v"), "terminate": true}, "map[ok:headers {'k': 'v'} were not terminated]"},
		{"revoke_by_stamped_headers", args{"headers": list("k")}, "map[error:IndexError('list index out of range')]"},
		{"rate_limit", args{"task_name": "hold", "rate_limit": "10/m"}, "map[ok:new rate limit set successfully]"},
		{"rate_limit", args{"task_name": "hold", "rate_limit": 2.5}, "map[ok:new rate limit set successfully]"},
		{"rate_limit", args{"task_name": "hold", "rate_limit": 0}, "map[ok:rate limit disabled successfully]"},
		{"rate_limit", args{"task_name": "hold", "rate_limit": nil}, "map[ok:rate limit disabled successfully]"},
		{"rate_limit", args{"task_name": "no.such", "rate_limit": "1/s"}, "map[error:unknown task]"},
		{"rate_limit", args{"task_name": "hold", "rate_limit": list()}, "map[error:Invalid rate limit string: TypeError('it is []')]"},
		{"rate_limit", args{"task_name": "hold"}, "map[error:TypeError(\"rate_limit() missing 1 required positional argument: 'rate_limit'\")]"},
		{"pool_grow", args{"n": 3}, "map[ok:pool will grow]"},
		{"pool_shrink", nil, "map[ok:pool will shrink]"},
		{"pool_shrink", args{"n": 100}, "map[error:ValueError('4 slots cannot become less than 1')]"},
		{"pool_grow", args{"n": "3"}, `map[error:TypeError("pool_grow: n is no whole number: '3'")]`},
		{"pool_grow", args{"n": int64(1) << 40}, "map[error:ValueError('pool_grow: n is out of range: 1099511627776')]"},
		{"autoscale", args{"max": 6, "min": 1}, "map[error:ValueError('Autoscale not enabled')]"},
		{"time_limit", args{"task_name": "hold", "hard": 20, "soft": 10.5}, "map[ok:time limits set successfully]"},
		{"time_limit", args{"task_name": "hold", "hard": nil}, "map[ok:time limits set successfully]"},
		{"time_limit", args{"task_name": "no.such", "hard": 1}, "map[error:unknown task]"},
		{"time_limit", args{"task_name": "hold", "hard": "soon"}, `map[error:TypeError("time_limit: hard is no number: 'soon'")]`},
	} {
		m.want(tt.method, tt.arguments, tt.want)
	}
	s.wantRevoked(r, "terminated")
}

// What is no request, or is not for this worker, gets no answer, and does no harm.
func TestControlThatIsNotHeeded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Hostname: "w1@box"})
	m := s.mailbox()
	others := func(change func(*protocol.PidboxRequest)) {
		r := m.request("revoke", map[string]any{"task_id": "a"})
		change(r)
		m.broadcast(r)
	}
	others(func(r *protocol.PidboxRequest) { r.Destination = []string{"w2@box", "w1"} })
	others(func(r *protocol.PidboxRequest) { r.Pattern, r.Matcher = "w2*", "glob" })
	others(func(r *protocol.PidboxRequest) { r.Pattern, r.Matcher = "1@box", "pcre" })
	others(func(r *protocol.PidboxRequest) { r.Pattern, r.Matcher = "(", "pcre" })
	others(func(r *protocol.PidboxRequest) { r.Pattern, r.Matcher = "*", "sql" })
	others(func(r *protocol.PidboxRequest) { r.Pattern, r.Matcher = strings.Repeat("*", 10_000), "glob" })
	for _, body := range []string{``, `null`, `[]`, `{`, `7`, `{"method":null}`, `{"method":7}`, `{"method":"revoke","arguments":[]}`,
		`{"method":"revoke","arguments":{"task_id":"a"},"destination":7}`, `{"method":"revoke","arguments":{"task_id":"a"},"destination":[7]}`,
		`{"method":"revoke","arguments":{"task_id":"a"},"reply_to":"me"}`, `{"method":"revoke","arguments":{"task_id":"a"},"ticket":{}}`,
		`{"method":"revoke","arguments":{"task_id":"a"},"reply_to":{"routing_key":[]}}`,
		strings.Repeat("[", 100_000), `"` + strings.Repeat("x", 5<<20) + `"`} {
		for _, kind := range []string{"application/json", "application/x-python-serialize", ""} {
			message := &protocol.Message{ContentType: kind, ContentEncoding: "utf-8", Body: []byte(body)}
			if err := s.client.Transport().Broadcast(s.context(), protocol.PidboxExchange, "", message); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Replies go nowhere else.
	elsewhere := m.request("ping", nil)
	elsewhere.ReplyTo = protocol.PidboxReplyTo{Exchange: "celery", RoutingKey: "celery"}
	m.broadcast(elsewhere)
	for _, r := range []*protocol.PidboxRequest{
		{Destination: []string{"w9@box", "w1@box"}}, {Pattern: "w[0-9]@*", Matcher: "glob"}, {Pattern: `w\d@`, Matcher: "pcre"},
		{Pattern: "w2*"}, {Destination: []string{"w1@box"}, Pattern: "w2*", Matcher: "glob"},
	} {
		asked := m.request("ping", nil)
		asked.Destination, asked.Pattern, asked.Matcher = r.Destination, r.Pattern, r.Matcher
		m.broadcast(asked)
		if got := fmt.Sprint(m.answer()); got != "map[ok:pong]" {
			t.Errorf("%+v is answered with %s", r, got)
		}
	}
	if _, yes := s.worker.revoked.holds(&protocol.Request{Headers: protocol.Headers{ID: "a"}}); yes {
		t.Error("a command for others was carried out")
	}
	s.settled()
}

// TestControlListsApart: who asks for lists, which may take long, holds up no other command.
func TestControlListsApart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{})
	m := s.mailbox()
	w := s.worker
	held := []sync.Locker{&w.reserved.mu, &w.active.mu, &w.revoked.mu}
	for _, l := range held {
		l.Lock()
	}
	release := sync.OnceFunc(func() {
		for _, l := range held {
			l.Unlock()
		}
	})
	defer release()
	lists := []string{"reserved", "active", "query_task", "revoked", "hello"}
	for _, method := range lists {
		m.broadcast(m.request(method, map[string]any{"ids": "x", "from_node": "other@box"}))
	}
	m.want("ping", nil, "map[ok:pong]")
	release()
	for range lists {
		if got := fmt.Sprint(m.answer()); strings.Contains(got, "error") {
			t.Errorf("a list is answered with %s", got)
		}
	}
}

// TestControlExpired: a command that comes too late is not carried out, nor one whose turn comes too late.
func TestControlExpired(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Concurrency: 2})
	m := s.mailbox()
	grow := func(expired time.Duration) *protocol.PidboxRequest {
		r := m.request("pool_grow", nil)
		r.Expires = time.Now().Add(-expired)
		return r
	}
	m.broadcast(grow(10 * time.Minute))
	m.broadcast(grow(clockAllowance / 4)) // of a machine whose clock is behind
	if got := fmt.Sprint(m.answer()); got != "map[ok:pool will grow]" || s.worker.Stats().Concurrency != 3 {
		t.Errorf("answered %s, and there are %d slots", got, s.worker.Stats().Concurrency)
	}
	waiting, answers := make(chan *protocol.PidboxRequest, 2), make(chan answer, 2)
	waiting <- grow(10 * time.Minute)
	waiting <- m.request("ping", nil)
	ctx, cancel := context.WithCancel(t.Context())
	c, done := &control{w: s.worker}, make(chan struct{})
	go func() {
		c.obey(ctx, waiting, func(a answer) { answers <- a })
		close(done)
	}()
	if a := await(t, answers, "the answer to ping"); a.to.Method != "ping" || c.expired.Load() != 1 || s.worker.Stats().Concurrency != 3 {
		t.Errorf("%s was carried out, %d had expired", a.to.Method, c.expired.Load())
	}
	cancel()
	await(t, done, "the actor's end")
}

func TestControlPanic(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{})
	// A worker without its table of revocations stands for any defect of a command.
	broken := &Worker{log: s.worker.log, commands: controlCommands}
	_, err := broken.command(t.Context(), &protocol.PidboxRequest{Method: "revoke", Arguments: map[string]any{"task_id": "a"}})
	if err == nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("got %v", err)
	}
}

func TestControlAutoscale(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Autoscale: Autoscale{Min: 2, Max: 4}})
	m := s.mailbox()
	m.want("pool_grow", nil, "map[error:pool_grow is not supported with autoscale. Adjust autoscale range instead.]")
	m.want("autoscale", map[string]any{"max": 6, "min": 1}, "map[ok:autoscale now max=6 min=1]")
	m.want("autoscale", map[string]any{"max": 3}, "map[ok:autoscale now max=3 min=1]")
	m.want("autoscale", map[string]any{"max": 0}, "map[error:ValueError('set autoscale: Max: 0 is not from 1 to 100000')]")
}

func TestControlShutdown(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{})
	m := s.mailbox()
	m.want("shutdown", nil, "map[ok:shutting down]")
	if err := await(t, s.done, "the worker's end"); err != nil {
		t.Error(err)
	}
	s.done <- nil
}

func TestControlDisabled(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	exhaust := s.limiting()
	s.start(Config{DisableRemoteControl: true})
	exhaust()
	r := s.send("limited")
	s.reaches(0, 1)
	if err := r.Revoke(s.context()); err != nil {
		t.Fatal(err)
	}
	s.wantRevoked(r, "revoked") // the broker remembers, the worker asks every five seconds
	const other = "answers@box"
	s.neighbour(other, NewMux())
	m := s.mailbox()
	for range 2 { // who answers the first has done so before the second is answered
		m.broadcast(m.request("ping", nil))
		d, err := m.replies.Receive(s.context())
		if err != nil {
			t.Fatal(err)
		}
		if body := string(d.Message.Body); !strings.Contains(body, other) {
			t.Fatalf("the worker answers: %s", body)
		}
	}
}

func TestActiveQueues(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Hostname: "w1@box", Queues: []string{"celery", "mail", "math"}, ExcludeQueues: []string{"math", "unknown"}, Direct: true})
	m := s.mailbox()
	queues, _ := m.ask("active_queues", nil).([]any)
	var names []string
	for _, q := range queues {
		d := q.(map[string]any)
		names = append(names, fmt.Sprint(d["name"], " ", d["exchange"].(map[string]any)["name"], " ", d["routing_key"]))
	}
	want := []string{"celery celery celery", "mail mail mail", "w1@box.dq2 C.dq2 w1@box"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Fatal(diff)
	}
	// A document that Celery 5.6 answered with.
	const python = `{"name":"celery","exchange":{"name":"celery","type":"direct","arguments":null,"durable":true,"passive":false,
		"auto_delete":false,"delivery_mode":null,"no_declare":false},"routing_key":"celery","queue_arguments":null,"binding_arguments":null,
		"consumer_arguments":null,"durable":true,"exclusive":false,"auto_delete":false,"no_ack":false,"alias":null,"bindings":[],
		"no_declare":null,"expires":null,"message_ttl":null,"max_length":null,"max_length_bytes":null,"max_priority":null}`
	expected, err := serialization.DecodeJSON([]byte(python))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expected, queues[0]); diff != "" {
		t.Error(diff)
	}
}

func TestQueuesAllExcluded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	if _, err := New(s.client, s.mux, Config{ExcludeQueues: []string{"celery"}}); err == nil || !strings.Contains(err.Error(), "ExcludeQueues") {
		t.Errorf("got %v", err)
	}
	if err := errors.Join((&Worker{consuming: make(chan struct{}), client: s.client}).AddQueue(t.Context(), "x")); err == nil {
		t.Error("a queue was added to a worker that does not run")
	}
}

// No number from outside turns the logical clock over.
func TestClock(t *testing.T) {
	w := &Worker{}
	for _, at := range []int64{5, 3, math.MaxInt64, -1} {
		before := w.clock.Load()
		if w.hearClock(at); w.clock.Load() <= 0 || w.clock.Load() < before {
			t.Errorf("after %d the clock goes from %d to %d", at, before, w.clock.Load())
		}
	}
}

// brokenCancel cancels without an answer, as RabbitMQ may when its broker is silent.
type brokenCancel struct {
	transport.Transport
	transport.Inspector
}

type brokenCancelConsumer struct{ transport.Consumer }

func (b brokenCancel) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	c, err := b.Transport.Consume(ctx, o)
	return brokenCancelConsumer{c}, err
}

func (c brokenCancelConsumer) Cancel(ctx context.Context, queue string) error {
	return errors.Join(c.Consumer.Cancel(ctx, queue), context.DeadlineExceeded)
}

// A queue whose Cancel failed can be added again.
func TestAddAfterFailedCancel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	whole := s.client.Transport()
	client, err := task.NewClient(brokenCancel{whole, whole.(transport.Inspector)}, s.client.Backend(), s.client.Config())
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	s.start(Config{Concurrency: 1})
	if err := s.worker.CancelQueue(s.context(), "celery"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.worker.AddQueue(s.context(), "celery"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil {
		t.Error(err)
	}
	if got := s.worker.consumed(); len(got) != 1 {
		t.Errorf("it lists the queues %v", got)
	}
}
