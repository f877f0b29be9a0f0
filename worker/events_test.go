package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// monitor hears the events of a site's broker.
type monitor struct {
	*site
	heard transport.Subscription
	all   []protocol.Event
}

func (s *site) monitor() *monitor {
	s.Helper()
	heard, err := s.client.Transport().Subscribe(s.context(), protocol.EventExchange, "#")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = heard.Close() })
	return &monitor{site: s, heard: heard}
}

// until hears events until one of the type has come about the task, or about none if id is empty.
func (m *monitor) until(kind, id string) *protocol.Event {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.T.Context(), time.Minute)
	defer cancel()
	for {
		d, err := m.heard.Receive(ctx)
		if err != nil {
			m.Fatalf("no %s of %q: %v; heard were %v", kind, id, err, m.told(id))
		}
		events, err := protocol.DecodeEvents(d.Message, serialization.Accept{})
		if err != nil {
			m.Fatal(err)
		}
		m.harmless(&d, events)
		m.all = append(m.all, events...)
		for i := range events {
			if e := &events[i]; e.Type == kind && (id == "" || e.Text("uuid") == id) {
				return e
			}
		}
	}
}

// harmless wants a message of events to have what a Python worker ends for lack of, or complains of.
func (m *monitor) harmless(d *transport.Delivery, events []protocol.Event) {
	m.Helper()
	where, body := d.Message.Properties.DeliveryInfo, d.Message.Body
	if where.Exchange == "" || where.RoutingKey == "" || d.Message.Properties.DeliveryTag == "" && d.Tag != "" || len(body) == 0 {
		m.Errorf("the envelope is %s", d.Raw)
	}
	single := body[0] == '{'
	if where.RoutingKey != protocol.TaskMultiKey && !single {
		m.Errorf("the key %s has %s", where.RoutingKey, body)
	}
	sender := ""
	for _, h := range d.Message.Headers.Extra {
		if h.Name == "hostname" {
			sender = string(h.Value)
		}
	}
	for i := range events {
		e := &events[i]
		if e.Group() == e.Type { // a test's own
			continue
		}
		if single && e.RoutingKey() != where.RoutingKey || e.Hostname == "" || sender != strconv.Quote(e.Hostname) || e.Clock <= 0 ||
			e.Timestamp.IsZero() || e.PID <= 0 {
			m.Errorf("by the key %s, from %s: %+v", where.RoutingKey, sender, e)
		}
		if freq, number := e.Field("freq").(float64); e.Group() == "worker" && !strings.Contains(e.Type, "elect") && (!number || freq <= 0) {
			m.Errorf("the interval of %s is %v", e.Type, e.Field("freq"))
		}
	}
}

// told are the events about a task, each as its type without "task-" and its fields without uuid, runtime, traceback and
// what the time decides.
func (m *monitor) told(id string) (all []string) {
	for i := range m.all {
		e := &m.all[i]
		if e.Text("uuid") != id {
			continue
		}
		text := strings.TrimPrefix(e.Type, "task-")
		for _, f := range e.Fields {
			switch {
			case f.Name == "uuid" || f.Value == nil:
			case f.Name == "runtime" || f.Name == "traceback" || f.Name == "eta" || f.Name == "expires":
				text += fmt.Sprintf(" %s:%T", f.Name, f.Value)
			default:
				text += fmt.Sprintf(" %s=%v", f.Name, f.Value)
			}
		}
		all = append(all, strings.ReplaceAll(text, id, "ID"))
	}
	return all
}

// TestEvents: every way a task can end, and the worker's own events around them.
func TestEvents(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("fails", func() error { return task.AsPython(nil, "builtins", "ValueError", "kaput", 42) })
	s.mux.Func("rejects", func() error { return task.Reject(errors.New("no"), false) })
	s.mux.Func("ignores", func() error { return task.Ignore })
	s.mux.Func("dead", func() error { return errors.New("dead") }, task.AckOnFailure(false))
	s.mux.Func("early", func() error { return task.Reject(errors.New("no"), false) }, task.AckEarly())
	s.mux.Func("again", func(ctx context.Context) (string, error) {
		if info, _ := task.FromContext(ctx); info.Retries == 0 {
			return "", task.Retry(task.AsPython(nil, "builtins", "KeyError", "nope"), task.Countdown(1500*time.Millisecond))
		}
		return "at last", nil
	})
	m := s.monitor()
	s.start(Config{TaskEvents: true, Hostname: "w1@box", HeartbeatInterval: time.Hour})
	const received = "received args=() kwargs={} name="
	const rest = " retries=0 root_id=ID"
	for name, want := range map[string][]string{
		"tasks.add": {"received args=(1, 2) kwargs={} name=tasks.add" + rest, "started", "succeeded result=3 runtime:float64"},
		"fails":     {received + "fails" + rest, "started", "failed exception=ValueError('kaput', 42) traceback:string"},
		"rejects":   {received + "rejects" + rest, "started", "rejected requeue=false"},
		"dead":      {received + "dead" + rest, "started", "rejected requeue=false", "failed exception=Exception('dead') traceback:string"},
		"no.such":   {"failed exception=NotRegistered('no.such')"},
		"again": {received + "again" + rest, "started", "retried exception=KeyError('nope') traceback:string",
			"received args=() eta:string kwargs={} name=again parent_id=ID retries=1 root_id=ID", "started", "succeeded result='at last' runtime:float64"},
		"expired": {"revoked expired=true terminated=false"},
	} {
		var r *task.Result[any]
		switch name {
		case "tasks.add":
			r = s.send(name, 1, 2)
		case "expired":
			r = s.sendWith("fails", task.ExpiresAt(time.Unix(1, 0)))
		default:
			r = s.send(name)
		}
		last, _, _ := strings.Cut(want[len(want)-1], " ")
		m.until("task-"+last, r.ID())
		got := m.told(r.ID())
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	silent := []*task.Result[any]{s.send("ignores"), s.send("early")}
	for _, r := range silent { // a stop gives back what has not begun
		for !slices.ContainsFunc(m.told(r.ID()), func(text string) bool { return text == "started" }) {
			m.until(protocol.TaskStarted, "")
		}
	}
	if v, err := s.send("tasks.add", 1, 2).Get(s.context()); err != nil {
		t.Fatal(v, err)
	}
	s.settled()
	offline := m.until(protocol.WorkerOffline, "")
	for _, r := range silent {
		if got := m.told(r.ID()); len(got) != 2 || got[1] != "started" {
			t.Errorf("of a task that ends without an event is told %q", got)
		}
	}
	if first := m.all[0]; first.Type != "worker-online" {
		t.Errorf("the first event is %s", first.Type)
	}
	if last := m.all[len(m.all)-1]; last.Type != "worker-offline" {
		t.Errorf("the last event is %s", last.Type)
	}
	for i, e := range m.all {
		if e.Hostname != "w1@box" || e.PID == 0 || time.Since(e.Timestamp).Abs() > time.Hour || i > 0 && e.Clock <= m.all[i-1].Clock {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	if load, _ := offline.Field("loadavg").([]any); len(load) != 3 || offline.Field("freq") != 3600.0 || offline.Field("active") != int64(0) ||
		offline.Field("processed") != int64(9) || offline.Text("sw_ident") != "gelery" || offline.Text("sw_ver") == "" || offline.Text("sw_sys") == "" {
		t.Errorf("worker-offline is %+v", offline)
	}
}

// TestEventCommands turns task events on and off while the worker runs.
func TestEventCommands(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.monitor()
	s.start(Config{HeartbeatInterval: time.Hour})
	box := s.mailbox()
	before := s.send("tasks.add", 1, 2)
	if _, err := before.Get(s.context()); err != nil {
		t.Fatal(err)
	}
	box.want("disable_events", nil, "map[ok:task events already disabled]")
	box.want("enable_events", nil, "map[ok:task events enabled]")
	box.want("enable_events", nil, "map[ok:task events already enabled]")
	during := s.send("tasks.add", 1, 2)
	m.until(protocol.TaskSucceeded, during.ID())
	box.want("disable_events", nil, "map[ok:task events disabled]")
	after := s.send("tasks.add", 1, 2)
	if _, err := after.Get(s.context()); err != nil {
		t.Fatal(err)
	}
	box.want("heartbeat", nil, "<nil>")
	if beat := m.until(protocol.WorkerHeartbeat, ""); beat.Field("freq") != 3600.0 || beat.Field("processed") != int64(3) {
		t.Errorf("the heartbeat is %+v", beat)
	}
	for _, r := range []*task.Result[any]{before, after} {
		if told := m.told(r.ID()); len(told) != 0 {
			t.Errorf("told is %q", told)
		}
	}
}

// TestMingle: a worker that starts and one that is there tell each other what is revoked.
func TestMingle(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{})
	box := s.mailbox()
	box.ask("revoke", map[string]any{"task_id": "ours"})
	reply, _ := box.ask("hello", map[string]any{"from_node": "other@box", "revoked": map[string]any{"theirs": []any{1.5, "theirs"}, "": nil}}).(map[string]any)
	revoked, _ := reply["revoked"].(map[string]any)
	for _, id := range []string{"ours", "theirs"} {
		pair, _ := revoked[id].([]any)
		if len(pair) != 2 || pair[1] != id {
			t.Errorf("%s is told as %v", id, pair)
		} else if _, float := pair[0].(float64); !float {
			t.Errorf("%s has the time %v", id, pair[0])
		}
	}
	if _, whole := reply["clock"].(int64); !whole || len(revoked) != 2 {
		t.Errorf("the reply is %v", reply)
	}
	box.want("hello", map[string]any{"from_node": s.worker.Hostname()}, "<nil>")
	box.want("election", map[string]any{"id": "1", "topic": "task", "action": nil}, "<nil>")
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.monitor()
	s.start(Config{HeartbeatInterval: 100 * time.Millisecond})
	for range 3 {
		m.until(protocol.WorkerHeartbeat, "")
	}
}

// TestNoHeartbeat: a worker that is to send none sends nothing.
func TestNoHeartbeat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.monitor()
	s.start(Config{DisableHeartbeat: true})
	s.mailbox().want("heartbeat", nil, "<nil>")
	s.settled()
	if err := s.client.Transport().Broadcast(s.context(), protocol.EventExchange, "x", protocol.NewEventMessage("h", []byte(`{"type": "x"}`))); err != nil {
		t.Fatal(err)
	}
	m.until("x", "")
	if len(m.all) != 1 {
		t.Errorf("it has sent %+v", m.all[0])
	}
}

// deaf is a broker that takes no events for a while, or one that takes them and cannot say so.
type deaf struct {
	transport.Transport
	deaf, mute atomic.Bool
	sent       atomic.Int32 // events' messages that it has taken
}

func (d *deaf) Broadcast(ctx context.Context, exchange, key string, m *protocol.Message) error {
	if exchange == protocol.EventExchange && d.deaf.Load() {
		return errors.New("not now")
	}
	mute := exchange == protocol.EventExchange && d.mute.Load()
	err := d.Transport.Broadcast(ctx, exchange, key, m)
	if exchange == protocol.EventExchange && err == nil {
		d.sent.Add(1)
	}
	if err == nil && mute {
		return &transport.PublishError{InDoubt: true, Err: errors.New("no confirmation")}
	}
	return err
}

// TestEventsInDoubt: what may have been sent is not sent again, and is counted among what was dropped.
func TestEventsInDoubt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.monitor()
	d := &deaf{Transport: s.client.Transport()}
	d.mute.Store(true)
	log := &lines{}
	var err error
	if s.client, err = task.NewClient(d, s.client.Backend(), task.Config{Logger: slog.New(slog.NewTextHandler(log, nil))}); err != nil {
		t.Fatal(err)
	}
	s.start(Config{TaskEvents: true, HeartbeatInterval: time.Hour})
	for _, n := range []int64{1, 2} {
		s.worker.events.tellTasks(event{kind: "task-custom", members: protocol.EventMembers(nil).Int("n", n)})
		if got := m.until("task-custom", "").Field("n"); got != n {
			t.Errorf("event %v has come; expected %d", got, n)
		}
		d.mute.Store(false)
	}
	if log.count("events were dropped") == 0 {
		t.Error("the log does not tell of events in doubt")
	}
}

// TestLastEventsInDoubt: a stop sends what is left behind a message that may have been sent, and tells of what it cannot send.
func TestLastEventsInDoubt(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := &deaf{Transport: s.client.Transport()}
	log := &lines{}
	client, err := task.NewClient(d, s.client.Backend(), task.Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	w, err := New(client, s.mux, Config{HeartbeatInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	tell := func() {
		for range fullEvents + 1 {
			w.events.tellTasks(event{kind: "task-custom"})
		}
	}
	d.mute.Store(true)
	tell()
	w.events.sendLast()
	if n := d.sent.Load(); n != 3 || log.count("events=256") != 1 || log.count("events=1\n") != 2 {
		t.Errorf("%d messages were sent; expected a full list, one of one event, and worker-offline, told as in doubt: %s", n, log.text.String())
	}
	d.deaf.Store(true)
	tell()
	w.events.sendLast()
	if n := d.sent.Load(); n != 3 || log.count("events=258") != 1 || len(w.events.waiting) != 0 {
		t.Errorf("%d messages were sent before one that takes none; expected 3, and the rest told as dropped: %s", n, log.text.String())
	}
}

// TestEventsWithoutBroker: what cannot be sent waits within its bound, and goes out in its order when it can.
func TestEventsWithoutBroker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.monitor()
	d := &deaf{Transport: s.client.Transport()}
	d.deaf.Store(true)
	log := &lines{}
	var err error
	if s.client, err = task.NewClient(d, s.client.Backend(), task.Config{Logger: slog.New(slog.NewTextHandler(log, nil))}); err != nil {
		t.Fatal(err)
	}
	s.start(Config{TaskEvents: true, HeartbeatInterval: time.Hour})
	e := s.worker.events
	first := s.send("tasks.add", 1, 2)
	if _, err := first.Get(s.context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		e.tellWorker(s.worker.workerEvent(protocol.WorkerHeartbeat))
	}
	text := strings.Repeat("x", maxEventText)
	const many = 3 * maxWaitingEvents / maxEventText
	for i := range many {
		e.tellTasks(event{kind: "task-custom", members: protocol.EventMembers(nil).Int("n", int64(i)).Text("text", text)})
	}
	e.mu.Lock()
	if e.bytes > maxWaitingEvents || e.dropped == 0 {
		t.Errorf("%d bytes wait, %d events are dropped", e.bytes, e.dropped)
	}
	total := 0
	for _, x := range e.waiting {
		total += len(x.body)
	}
	if total != e.bytes {
		t.Errorf("%d bytes wait, counted are %d", total, e.bytes)
	}
	e.mu.Unlock()
	d.deaf.Store(false)
	for { // the last comes through
		last := m.until("task-custom", "")
		if m.all[len(m.all)-1].Field("n") == int64(many-1) || last.Field("n") == int64(many-1) {
			break
		}
	}
	for i := 1; i < len(m.all); i++ {
		if m.all[i].Clock <= m.all[i-1].Clock {
			t.Fatalf("event %d comes before its time", i)
		}
	}
	if len(m.all) >= many || log.count("events were dropped") == 0 {
		t.Errorf("%d events have come; the log does not tell of dropped ones", len(m.all))
	}
}

// TestHeartbeatsDoNotPileUp: only the newest waits.
func TestHeartbeatsDoNotPileUp(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w, err := New(s.client, s.mux, Config{})
	if err != nil {
		t.Fatal(err)
	}
	w.events.begin()
	for range 10 {
		w.events.tellTasks(event{kind: "task-custom"})
		w.events.tellWorker(w.workerEvent(protocol.WorkerHeartbeat))
	}
	var keys []string
	for _, x := range w.events.waiting {
		keys = append(keys, x.routingKey)
	}
	want := append([]string{"worker.online"}, strings.Split(strings.Repeat("task.multi ", 10), " ")[:10]...)
	if diff := cmp.Diff(append(want, "worker.heartbeat"), keys); diff != "" {
		t.Error(diff)
	}
}

// TestNoEvents wants what nobody hears to cost nothing.
func TestNoEvents(t *testing.T) {
	w := &Worker{log: slog.New(slog.DiscardHandler)}
	w.events = &events{w: w}
	x := &execution{job: &job{request: &protocol.Request{}}}
	c := completion{state: protocol.Success, result: "x"}
	batch := []*outcome{{}}
	allocations := testing.AllocsPerRun(100, func() {
		w.events.tellReceived(x.job)
		w.events.tellStarted(x.request)
		batch[0].events = w.events.ofRun(batch[0], x, &c)
		w.events.delayed(x.job)
		w.events.tellOutcomes(batch)
	})
	if allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
}

func BenchmarkTaskEvents(b *testing.B) {
	client, err := task.NewClient(&nopTransport{}, nil, task.Config{})
	if err != nil {
		b.Fatal(err)
	}
	w, err := New(client, NewMux(), Config{TaskEvents: true})
	if err != nil {
		b.Fatal(err)
	}
	r := &protocol.Request{Protocol: 2}
	r.ID, r.Task, r.ArgsRepr, r.KwargsRepr, r.RootID = protocol.NewID(), "tasks.add", "(1, 2)", "{}", protocol.NewID()
	x := &execution{job: &job{request: r}, begun: time.Now()}
	c := completion{state: protocol.Success, result: int64(3)}
	o := &outcome{request: r, state: protocol.Success}
	batch := []*outcome{o}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		w.events.tellReceived(x.job)
		w.events.tellStarted(r)
		o.events = w.events.ofRun(o, x, &c)
		w.events.tellOutcomes(batch)
		if n%64 == 0 {
			w.events.flush(b.Context(), nil)
		}
	}
}

// nopTransport takes broadcasts, and writes them as for Redis.
type nopTransport struct {
	transport.Transport
	envelope []byte
}

func (t *nopTransport) Broadcast(_ context.Context, _, _ string, m *protocol.Message) error {
	t.envelope = protocol.AppendEnvelope(t.envelope[:0], m)
	return nil
}

// flood is a broker that, while it takes a message of task events, gets the worker to tell so much that another is full.
type flood struct {
	transport.Transport
	again func()
}

func (f *flood) Broadcast(ctx context.Context, exchange, key string, m *protocol.Message) error {
	if exchange == protocol.EventExchange && key == protocol.TaskMultiKey {
		f.again()
		<-time.After(time.Millisecond) // which the broker takes
		return nil
	}
	return f.Transport.Broadcast(ctx, exchange, key, m)
}

// TestHeartbeatsInAFlood: a worker whose tasks tell more than the broker takes is alive all the same.
func TestHeartbeatsInAFlood(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	m := s.monitor()
	var flooded atomic.Bool
	f := &flood{Transport: s.client.Transport(), again: func() {
		if flooded.Load() {
			s.worker.events.tellTasks(event{kind: "task-custom", members: protocol.EventMembers(nil).Text("text", strings.Repeat("x", fullBytes))})
		}
	}}
	var err error
	if s.client, err = task.NewClient(f, s.client.Backend(), task.Config{}); err != nil {
		t.Fatal(err)
	}
	s.start(Config{TaskEvents: true, HeartbeatInterval: 100 * time.Millisecond})
	t.Cleanup(func() { flooded.Store(false) })
	flooded.Store(true)
	f.again()
	for range 5 {
		m.until(protocol.WorkerHeartbeat, "")
	}
}
