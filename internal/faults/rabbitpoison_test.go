//go:build unix

package faults

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// poison are the messages that make Python workers end on RabbitMQ, again and again, and a few more. Each is a task
// message but for one thing.
func poison() map[string]amqp.Publishing {
	bad := func(change func(m *amqp.Publishing)) amqp.Publishing {
		id := protocol.NewID()
		m := amqp.Publishing{ContentType: "application/json", ContentEncoding: "utf-8", DeliveryMode: amqp.Persistent,
			CorrelationId: id, Body: []byte(`[[], {"ms": 0}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`),
			Headers: amqp.Table{"lang": "py", "task": note.Name(), "id": id, "root_id": id, "retries": int32(0)}}
		change(&m)
		return m
	}
	return map[string]amqp.Publishing{
		"no id":               bad(func(m *amqp.Publishing) { delete(m.Headers, "id") }),
		"body 123":            bad(func(m *amqp.Publishing) { m.Body = []byte("123") }),
		"time limit, no pair": bad(func(m *amqp.Publishing) { m.Headers["timelimit"] = "abc" }),
		"undecodable body":    bad(func(m *amqp.Publishing) { m.Body = []byte("\x80\x81{") }),
		"unknown content":     bad(func(m *amqp.Publishing) { m.ContentType = "application/x-nonsense" }),
		"unknown task":        bad(func(m *amqp.Publishing) { m.Headers["task"] = "no.such.task" }),
		"task is a number":    bad(func(m *amqp.Publishing) { m.Headers["task"] = int64(7) }),
		"garbage headers": bad(func(m *amqp.Publishing) {
			m.Headers = amqp.Table{"id": amqp.Table{"a": []any{nil, 1.5}}, "task": []byte{0xff}, "retries": "many", "eta": int64(5)}
		}),
		"no headers": bad(func(m *amqp.Publishing) { m.Headers = nil }),
		"nothing":    {},
	}
}

// broker is a plain channel in confirm mode, for what our own client would not send.
func broker(t *testing.T, url string) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	if err == nil {
		err = ch.Confirm(false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

func put(t *testing.T, ch *amqp.Channel, queue string, m amqp.Publishing) {
	t.Helper()
	confirmation, err := ch.PublishWithDeferredConfirm("", queue, true, false, m)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := confirmation.WaitContext(deadlineOf(t, 20*time.Second)); !ok || err != nil {
		t.Fatalf("confirmed: %v, %v", ok, err)
	}
}

// TestRabbitMQPoison mixes bad messages with good ones: each bad one is put aside once, with its bytes and a reason, and
// every good one runs once.
func TestRabbitMQPoison(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	s := onRabbitMQ(t, server, server.URL, "poison", "classic")
	w := s.worker()
	ch := broker(t, server.URL)
	bad := poison()
	for _, m := range bad {
		put(t, ch, s.setup.Queue, m)
		if _, err := s.send(deadlineOf(t, 20*time.Second), 1); err != nil {
			t.Fatal(err)
		}
	}
	s.settled(recovery)
	if err := w.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	s.account(outcome{what: "hostile messages among good ones", faults: len(bad), parked: len(bad)})
	qs, err := s.client.Transport().(transport.Inspector).Quarantined(deadlineOf(t, 20*time.Second), s.setup.Queue, 100)
	if err != nil || len(qs) != len(bad) {
		t.Errorf("%d in quarantine, %v; expected %d", len(qs), err, len(bad))
	}
	for name, m := range bad {
		found := 0
		for _, q := range qs {
			if bytes.Equal(q.Raw, m.Body) && strings.Contains(string(q.Properties), m.CorrelationId) && json.Valid(q.Properties) && q.Reason != "" {
				found++
			}
		}
		if found == 0 {
			t.Errorf("%s: not in quarantine with its bytes, its properties and a reason", name)
		}
	}
	for _, q := range qs {
		t.Logf("put aside: %.120s", q.Reason)
	}
}

// TestRabbitMQPoisonHeld has a worker whose user may not make a quarantine: bad messages are held, fewer than it may
// hold in all, good ones go on, and it stops warm.
func TestRabbitMQPoisonHeld(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	name := "user-" + protocol.NewID()
	server.Manage("PUT", "/api/users/"+name, `{"password":"secret","tags":""}`)
	t.Cleanup(func() { server.Manage("DELETE", "/api/users/"+name, "") })
	server.Manage("PUT", "/api/permissions/"+url.PathEscape(server.Vhost)+"/"+name,
		`{"configure":"^(?!_gelery)","write":"^(?!_gelery)","read":".*"}`)
	s := onRabbitMQ(t, server, strings.Replace(server.URL, "guest:guest", name+":secret", 1), "held", "classic")
	w := s.worker()
	ch := broker(t, server.URL)
	bad := 0
	for _, m := range poison() {
		if bad++; bad > prefetch-2 {
			break
		}
		put(t, ch, s.setup.Queue, m)
	}
	bad = min(bad, prefetch-2)
	for range 50 {
		if _, err := s.send(deadlineOf(t, 20*time.Second), 1); err != nil {
			t.Fatal(err)
		}
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for ctx := deadlineOf(t, recovery); len(s.ledger.Counts(t)) < 50; <-ticker.C {
		if ctx.Err() != nil {
			t.Fatalf("%d of 50 good tasks ran beside %d bad ones that are held; the worker said: %s", len(s.ledger.Counts(t)), bad, w.log)
		}
	}
	if !strings.Contains(w.log.String(), "quarantine") || !strings.Contains(w.log.String(), name) {
		t.Errorf("the worker did not tell that it may not put messages aside: %s", w.log)
	}
	start := time.Now()
	if err := w.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	t.Logf("warm stop in %v", time.Since(start))
	for ctx := deadlineOf(t, recovery); ; <-ticker.C {
		ready, unacked := server.Depth(s.setup.Queue)
		if ready == bad && unacked == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d wait and %d are unacked; expected the %d bad ones back", ready, unacked, bad)
		}
	}
	s.account(outcome{what: "hostile messages, no right to set them aside", faults: bad})
}
