package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

// TestHostileOnRabbitMQ is TestHostileMessages on RabbitMQ, where three of these shapes send every Python worker into a
// crash loop (reliability.md 0.11): once a Go worker has met them, a Python worker can serve the same queue.
func TestHostileOnRabbitMQ(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		server := testservice.RabbitMQ(t)
		c := Crossing{Version: v, Stack: RabbitMQStack}
		s := Settings{Broker: server.URL, Backend: testservice.Redis(t), Queue: "shared"}
		gelery := StartGelery(t, s)
		c.To(PythonToGo).Cell(t, "hostile messages are set aside", func(t *testing.T) { meetHostile(t, s, server) })
		if code := gelery.Stop(t, time.Minute); code != 0 {
			t.Errorf("the Go worker ended with code %d", code)
		}
		python := c.StartWorker(t, s, "solo", 1)
		c.To(GoToPython).Cell(t, "a Python worker lives on after them", func(t *testing.T) {
			client := dial(t, s, 2)
			for i := range 10 {
				wantResult(t, client, "py.add", []any{i, 1}, int64(i+1))
			}
			select {
			case <-python.Exited():
				t.Error("the Python worker ended")
			default:
			}
		})
	})
}

// meetHostile sends every shape four times, twenty times over all versions, with good tasks between them.
func meetHostile(t *testing.T, s Settings, server *testservice.RabbitMQServer) {
	const rounds = 4
	ch := amqpChannel(t, s.Broker)
	client := dial(t, s, 2)
	injected := map[string]hostileDelivery{}
	for round := range rounds {
		for i, h := range hostileDeliveries(round) {
			h.MessageId = fmt.Sprintf("%d-%d", round, i)
			injected[h.MessageId] = h
			if err := ch.PublishWithContext(within(t), "", s.Queue, true, false, h.Publishing); err != nil {
				t.Fatalf("%s: %v", h.what, err)
			}
			if i%5 == 0 {
				wantResult(t, client, "dev.add", []any{i, 1}, int64(i+1))
			}
		}
	}
	eventually(t, "all are in quarantine and nothing is held", func() bool {
		aside, _ := server.Depth("_gelery.quarantine." + s.Queue)
		ready, unacked := server.Depth(s.Queue)
		return aside == len(injected) && ready+unacked == 0
	})
	wantResult(t, client, "dev.add", []any{2, 3}, int64(5))
	for _, m := range quarantined(t, s, len(injected)) {
		h, ok := injected[m.Properties.ID]
		delete(injected, m.Properties.ID)
		switch {
		case !ok:
			t.Errorf("in quarantine twice, or never sent: %q", m.Properties.ID)
			continue
		case m.raw(t) != string(h.Body):
			t.Errorf("%s: the body has changed to %.100q", h.what, m.raw(t))
		case m.Reason == "":
			t.Errorf("%s: no reason", h.what)
		}
		for name := range h.Headers {
			if _, ok := m.Properties.Headers[name]; !ok && !h.filled {
				t.Errorf("%s: the header %.100q is lost", h.what, name)
			}
		}
		if h.id == "" {
			continue
		}
		if state, err := client.Result(h.id).State(within(t)); err != nil || state != protocol.Failure {
			t.Errorf("%s: its task has state %s, %v; expected FAILURE", h.what, state, err)
		}
	}
	for _, h := range injected {
		t.Errorf("not in quarantine: %s", h.what)
	}
}

// hostileDelivery is a message as no Celery client would send it.
type hostileDelivery struct {
	amqp.Publishing
	what   string
	id     string // of the task, where one can be read and somebody may wait for it
	filled bool   // the reason does not fit beside its headers, of which the last are left out
}

func hostileDeliveries(round int) []hostileDelivery {
	const good = `[[1, 2], {}, {}]`
	var all []hostileDelivery
	add := func(what string, change func(p *amqp.Publishing)) *hostileDelivery {
		id := fmt.Sprintf("hostile-%d-%d", round, len(all))
		h := hostileDelivery{what: what, Publishing: amqp.Publishing{ContentType: "application/json", ContentEncoding: "utf-8",
			Headers: amqp.Table{"task": "dev.add", "id": id}, CorrelationId: id, DeliveryMode: amqp.Persistent, Body: []byte(good)}}
		change(&h.Publishing)
		if h.Headers["id"] == id {
			h.id = id
		}
		all = append(all, h)
		return &all[len(all)-1]
	}
	for _, body := range []string{`123`, `null`, ``, `"text"`, `{}`, `[[], {}]`, `[[], null, null]`, `[null, {}, null]`, `[[`, `not json`,
		"\x00\xff\x1b[2J", strings.Repeat("[", 100_000), `[[1, 2], {}, {}] ` + "\x00"} {
		add(fmt.Sprintf("body %.20q", body), func(p *amqp.Publishing) { p.Body = []byte(body) })
	}
	for name, values := range map[string][]any{
		"id":          {nil, "", int64(5), []byte("bytes"), []any{"list"}, amqp.Table{"a": "table"}, time.Unix(1, 0)},
		"task":        {nil, "", int64(5), []byte("dev.add"), "no.such.task", "dev.add\x00"},
		"timelimit":   {[]any{int64(1)}, []any{int64(1), int64(2), int64(3)}, "abc", []any{"a", "b"}, amqp.Table{}},
		"eta":         {"", "yesterday", int64(5)},
		"expires":     {int64(5), "never"},
		"retries":     {"x", []any{}},
		"compression": {"application/x-gzip", "application/x-unknown", int64(1)},
	} {
		for _, v := range values {
			add(fmt.Sprintf("%s is %#v", name, v), func(p *amqp.Publishing) { p.Headers[name] = v })
		}
	}
	add("no id", func(p *amqp.Publishing) { delete(p.Headers, "id") })
	add("no task", func(p *amqp.Publishing) { delete(p.Headers, "task") })
	add("no headers", func(p *amqp.Publishing) { p.Headers = nil })
	add("no headers, and a body of another protocol", func(p *amqp.Publishing) { p.Headers, p.Body = nil, []byte(`{"task": 5, "id": []}`) })
	for _, kind := range []string{"", "text/plain", "application/x-unknown", "application/x-python-serialize", "application/json; charset=utf-8"} {
		add("content type "+kind, func(p *amqp.Publishing) { p.ContentType = kind })
	}
	// Headers of types that other clients write, of every size, on messages that are bad anyway.
	for what, v := range map[string]any{
		"int16": int16(-1), "byte": byte(200), "float32": float32(0.5), "decimal": amqp.Decimal{Scale: 2, Value: 110},
		"timestamp": time.Unix(1<<33, 0), "bytes": []byte("\xff\x00"), "no UTF-8": "\xff\xfe", "deep": deepTable(400),
		"large": strings.Repeat("x", 120_000),
	} {
		add("a header that is "+what, func(p *amqp.Publishing) { p.Headers["x-strange"], p.Body = v, []byte(`123`) })
	}
	add("headers that fill a frame", func(p *amqp.Publishing) {
		p.Headers["x-strange"], p.Body = strings.Repeat("x", 130_700), []byte(`123`)
	}).filled = true
	return all
}

func deepTable(levels int) amqp.Table {
	t := amqp.Table{}
	for range levels {
		t = amqp.Table{"d": t}
	}
	return t
}

// amqpChannel is a channel of a plain AMQP client, which sends what it is told.
func amqpChannel(t testing.TB, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
