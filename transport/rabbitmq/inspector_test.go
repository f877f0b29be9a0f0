package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

const operatorLimit = 30 * time.Second

// operator opens a transport for an operator's questions. Without a management URL the plugin cannot be reached.
func operator(t *testing.T, url, managementURL string) *rabbitTransport {
	t.Helper()
	if managementURL == "" {
		managementURL = "http://127.0.0.1:1"
	}
	tr, err := open(limited(t), url, transport.Options{Logger: slog.New(slog.DiscardHandler),
		TransportOptions: map[string]any{"management_url": managementURL}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), operatorLimit)
		defer cancel()
		if err := tr.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return tr.(*rabbitTransport)
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), operatorLimit)
	t.Cleanup(cancel)
	return ctx
}

func mustDeclare(t *testing.T, tr *rabbitTransport, queues ...transport.Queue) {
	t.Helper()
	for _, q := range queues {
		if err := tr.Declare(limited(t), q); err != nil {
			t.Fatal(err)
		}
	}
}

func taskMessage(id string) *protocol.Message {
	m := &protocol.Message{Body: []byte(id), ContentType: "application/json", ContentEncoding: "utf-8"}
	m.Headers.Task, m.Headers.ID = "x", id
	m.Properties.CorrelationID, m.Properties.DeliveryMode = id, 2
	return m
}

func mustSend(t *testing.T, tr *rabbitTransport, queue, id string, priority int) {
	t.Helper()
	m := taskMessage(id)
	m.Properties.Priority = priority
	if err := tr.Publish(limited(t), []transport.Publication{{Message: m, RoutingKey: queue}}); err != nil {
		t.Fatal(err)
	}
}

// eventually calls f until it returns "", and fails with what it said last.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	ctx := limited(t)
	for {
		said := f()
		if said == "" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(said)
		case <-time.After(50 * time.Millisecond): // the broker counts in intervals, and tells nobody when
		}
	}
}

func TestDepths(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	tr := operator(t, s.URL, s.ManagementURL)
	mustDeclare(t, tr, transport.Queue{Name: "mail"}, transport.Queue{Name: "a/b ü%2f"},
		transport.Queue{Name: "prio", Arguments: map[string]any{"x-max-priority": 3}})
	mustSend(t, tr, "prio", "1", 0)
	mustSend(t, tr, "prio", "2", 3)
	mustSend(t, tr, "mail", "held", 0)
	mustSend(t, tr, "mail", "parked", 0)
	mustSend(t, tr, "mail", "waiting", 0)
	c, err := tr.Consume(limited(t), transport.ConsumeOptions{Queues: []transport.Queue{{Name: "mail"}}, Prefetch: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // one is held, one goes to quarantine and the third one takes its place in the window
		ds, err := c.Receive(limited(t), 1)
		if err != nil {
			t.Fatal(err)
		}
		if string(ds[0].Raw) == "parked" {
			if _, err := c.Settle(limited(t), []transport.Settlement{{Delivery: &ds[0], Verdict: transport.Quarantine, Reason: "bad"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	mustSend(t, tr, "mail", "waits", 0)

	names := []string{"mail", "none", "prio", "a/b ü%2f"}
	want := []transport.Depth{
		{Queue: "mail", Messages: 1, Unacked: 2, Delayed: -1, Quarantined: 1},
		{Queue: "none", Messages: -1, Unacked: -1, Delayed: -1, Error: `queue "none": not found`},
		{Queue: "prio", Messages: 2, Delayed: -1, ByPriority: map[int]int64{0: 1, 1: 0, 2: 0, 3: 1}},
		{Queue: "a/b ü%2f", Delayed: -1},
	}
	check := func(tr *rabbitTransport) string {
		got, err := tr.Depths(limited(t), names)
		if err != nil {
			t.Fatal(err)
		}
		return cmp.Diff(want, got)
	}
	eventually(t, func() string { return check(tr) })
	// More queues than are asked for one by one.
	names = append(slices.Repeat([]string{"mail"}, managementSingles), names...)
	want = append(slices.Repeat(want[:1], managementSingles), want...)
	if d := check(tr); d != "" {
		t.Error(d)
	}

	names, want = names[managementSingles:], want[managementSingles:]
	for i := range want {
		want[i].Unacked, want[i].ByPriority = -1, nil
	}
	if d := check(operator(t, s.URL, "")); d != "" {
		t.Errorf("without the management plugin: %s", d)
	}
	if err := c.Close(limited(t)); err != nil {
		t.Error(err)
	}
}

func TestQueues(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	tr := operator(t, s.URL, s.ManagementURL)
	if got, err := tr.Queues(limited(t)); err != nil || len(got) != 0 {
		t.Fatalf("an empty broker has %q, %v", got, err)
	}
	machinery := []string{"w1@host.celery.pidbox", protocol.NewID() + ".reply.celery.pidbox", "celeryev." + protocol.NewID(), protocol.NewID(),
		"celery_delayed_3", quarantineName("mail")}
	want := []string{"bcast." + protocol.NewID(), "mail", "with space/slash"}
	for i := range managementPage { // more than one page
		want = append(want, fmt.Sprintf("many%03d", i))
	}
	err := tr.onChannel(limited(t), "declare", func(ch *amqp.Channel) error {
		if _, err := ch.QueueDeclare("mine", false, true, true, false, nil); err != nil {
			return err
		}
		for _, q := range append(slices.Clone(machinery), want...) {
			if _, err := ch.QueueDeclare(q, false, false, false, true, nil); err != nil {
				return err
			}
		}
		_, err := ch.QueueDeclare("last", false, false, true, false, nil) // when this is there the others are
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := tr.Queues(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestQuarantineOutlivesItsQueue: what is in quarantine is listed even if its queue is deleted.
func TestQuarantineOutlivesItsQueue(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	tr := operator(t, s.URL, s.ManagementURL)
	mustDeclare(t, tr, transport.Queue{Name: quarantineName("gone"), Unbound: true})
	mustSend(t, tr, quarantineName("gone"), "x", 0)
	eventually(t, func() string {
		got, err := tr.Queues(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		return cmp.Diff([]string{"gone"}, got)
	})
}

func TestQueuesNeedManagement(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	user := restricted(t, s, "^$", "")
	for name, tt := range map[string]struct{ management, want string }{
		"nobody there": {"", "the management plugin does not answer at http://127.0.0.1:1 (dial tcp 127.0.0.1:1: connect: connection refused); enable rabbitmq_management"},
		"not allowed":  {strings.Replace(s.ManagementURL, "guest:guest@", user+":secret@", 1), "answers 401 to queues/"},
		"no RabbitMQ":  {"http://" + s.Addr, "does not answer at http://" + s.Addr},
	} {
		_, err := operator(t, s.URL, tt.management).Queues(limited(t))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v\nwant %s", name, err, tt.want)
		}
	}
}

// restricted makes a user with the password "secret", who may do everything to what matches the expression.
func restricted(t *testing.T, s *testservice.RabbitMQServer, expression, tags string) string {
	t.Helper()
	name := "user-" + protocol.NewID()
	s.Manage("PUT", "/api/users/"+name, `{"password":"secret","tags":"`+tags+`"}`)
	t.Cleanup(func() { s.Manage("DELETE", "/api/users/"+name, "") })
	e, _ := json.Marshal(expression)
	s.Manage("PUT", "/api/permissions/"+url.PathEscape(s.Vhost)+"/"+name, fmt.Sprintf(`{"configure":%[1]s,"write":%[1]s,"read":%[1]s}`, e))
	return name
}

func TestPurge(t *testing.T) {
	t.Parallel()
	tr := operator(t, testservice.RabbitMQ(t).URL, "")
	mustDeclare(t, tr, transport.Queue{Name: "q"})
	for i := range 3 {
		mustSend(t, tr, "q", fmt.Sprint(i), 0)
	}
	for _, want := range []struct {
		queue string
		n     int64
	}{{"q", 3}, {"q", 0}, {"none", 0}} {
		if n, err := tr.Purge(limited(t), want.queue); n != want.n || err != nil {
			t.Errorf("%s: %d, %v; want %d", want.queue, n, err, want.n)
		}
	}
	if n, err := tr.PurgeQuarantine(limited(t), "q"); n != 0 || err != nil {
		t.Errorf("no quarantine: %d, %v", n, err)
	}
}

// TestQuarantinedCut: of a header table that did not fit a frame there is what came, up to the cut.
func TestQuarantinedCut(t *testing.T) {
	t.Parallel()
	raw := appendEntries(nil, nil, []tableEntry{{reasonHeader, "bad"}, {timeHeader, "2026-01-02T03:04:05Z"}, {"large", "cut"}})
	m := quarantined("q", &amqp.Delivery{Headers: amqp.Table{cutKey: raw[:len(raw)-2]}})
	if m.Reason != "bad" || m.Time.Year() != 2026 || !strings.Contains(string(m.Properties), `"x-gelery-reason":"bad"`) {
		t.Errorf("%+v, %s", m, m.Properties)
	}
}

func TestQuarantined(t *testing.T) {
	t.Parallel()
	tr := operator(t, testservice.RabbitMQ(t).URL, "")
	mustDeclare(t, tr, transport.Queue{Name: "q"})
	const all = 5
	c, err := tr.Consume(limited(t), transport.ConsumeOptions{Queues: []transport.Queue{{Name: "q"}}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		mustSend(t, tr, "q", fmt.Sprint(i), 0)
		ds, err := c.Receive(limited(t), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Settle(limited(t), []transport.Settlement{{Delivery: &ds[0], Verdict: transport.Quarantine, Reason: "why " + fmt.Sprint(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{2, all, all + 1, 1 << 40, 0, 2} { // again and again: nothing is taken
		got, err := tr.Quarantined(limited(t), "q", limit)
		if err != nil || len(got) != min(limit, all) {
			t.Fatalf("limit %d: %d messages, %v", limit, len(got), err)
		}
		for i, m := range got {
			id := fmt.Sprint(all - 1 - i)
			if string(m.Raw) != id || m.Reason != "why "+id || m.Queue != "q" || time.Since(m.Time).Abs() > time.Minute {
				t.Errorf("limit %d, message %d: %s, %q, %q, %v", limit, i, m.Raw, m.Reason, m.Queue, m.Time)
			}
			var p struct {
				Type    string `json:"content_type"`
				ID      string `json:"correlation_id"`
				Headers struct{ Task, ID string }
			}
			if err := json.Unmarshal(m.Properties, &p); err != nil || p.Type != "application/json" || p.ID != id || p.Headers.Task != "x" || p.Headers.ID != id {
				t.Errorf("properties %s: %v", m.Properties, err)
			}
		}
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tr.Quarantined(over, "q", 1); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that is done: %v", err)
	}
	if n, err := tr.PurgeQuarantine(limited(t), "q"); n != all || err != nil {
		t.Errorf("purge: %d, %v", n, err)
	}
	if got, err := tr.Quarantined(limited(t), "q", 1); len(got) != 0 || err != nil {
		t.Errorf("after the purge: %v, %v", got, err)
	}
}
