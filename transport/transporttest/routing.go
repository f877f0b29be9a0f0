package transporttest

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/gelery/gelery/transport"
)

// publishTo sends one message and returns what Publish said.
func (b *bench) publishTo(exchange, routingKey, id string) error {
	return b.transport.Publish(b.context(), []transport.Publication{{Message: message(id), Exchange: exchange, RoutingKey: routingKey}})
}

// mustPublishTo is publishTo that has to succeed.
func (b *bench) mustPublishTo(exchange, routingKey, id string) {
	b.Helper()
	if err := b.publishTo(exchange, routingKey, id); err != nil {
		b.Fatalf("publish to exchange %q, key %q: %v", exchange, routingKey, err)
	}
}

// wantNoRoute asserts that an error is what Publish says when nobody got the message.
func (b *bench) wantNoRoute(what string, err error) {
	b.Helper()
	var p *transport.PublishError
	if !errors.Is(err, transport.ErrNoRoute) || !errors.As(err, &p) || p.InDoubt {
		b.Errorf("%s: publish returned %v; expected a PublishError, not in doubt, of ErrNoRoute", what, err)
	}
}

// drain receives and acknowledges all that waits in a queue, which must be these, in order.
func (b *bench) drain(q transport.Queue, want ...string) {
	b.Helper()
	b.wantDepth(q.Name, int64(len(want)), 0)
	c := b.consumeFrom(0, q)
	ds := b.receive(c, len(want))
	b.wantIDs(ds, want...)
	b.settle(c, transport.Ack, "", ds...)
	b.close(c)
}

func testExchanges(_ *testing.T, b *bench) {
	bound := func(name, exchange, kind, key string) transport.Queue {
		q := b.queue(name)
		q.Exchange, q.ExchangeType, q.RoutingKey = exchange, kind, key
		b.declare(q)
		return q
	}
	d1, d2 := bound("d1", "direct", "", "k"), bound("d2", "direct", "direct", "other")
	t1, t2 := bound("t1", "topic", "topic", "*.b"), bound("t2", "topic", "topic", "a.#")
	b.mustPublishTo("direct", "k", "direct")
	b.mustPublishTo("topic", "a.b", "one")
	b.mustPublishTo("topic", "a.b.c", "two")
	b.drain(d1, "direct")
	b.drain(d2)
	b.drain(t1, "one")
	b.drain(t2, "one", "two")
}

func testNoRoute(t *testing.T, b *bench) {
	q := b.queue("q")
	q.Exchange, q.RoutingKey = "direct", "k"
	b.declare(q)
	b.mustPublishTo("direct", "k", "before")
	for _, to := range []struct{ what, exchange, key string }{
		{"no such exchange", "nowhere", "k"},
		{"no such binding", "direct", "other"},
		{"no such queue", "", "nobody"},
	} {
		if b.Virtual && to.exchange == "" {
			b.mustPublishTo("", to.key, "made by its message")
			b.wantDepth(to.key, 1, 0)
			continue
		}
		for range 2 { // the second may meet what the first has found out
			b.wantNoRoute(to.what, b.publishTo(to.exchange, to.key, "x"))
		}
		optional := transport.Publication{Message: message("x"), Exchange: to.exchange, RoutingKey: to.key, Optional: true}
		if err := b.transport.Publish(b.context(), []transport.Publication{optional}); err != nil {
			t.Errorf("%s: an optional message is refused: %v", to.what, err)
		}
	}
	b.mustPublishTo("direct", "k", "after")
	b.drain(q, "before", "after")
	// What was not there may come to be.
	q.Name, q.Exchange = "late", "nowhere"
	b.declare(q)
	b.mustPublishTo("nowhere", "k", "late")
	b.drain(q, "late")
}

func testNoRouteInBatch(_ *testing.T, b *bench) {
	q := b.queue("q")
	q.Exchange, q.RoutingKey = "direct", "k"
	b.declare(q)
	to := func(key, id string) transport.Publication {
		return transport.Publication{Message: message(id), Exchange: "direct", RoutingKey: key}
	}
	err := b.transport.Publish(b.context(), []transport.Publication{to("k", "first"), to("other", "lost"), to("k", "last")})
	if b.Virtual { // all are routed before any is sent
		b.wantNoRoute("a batch", err)
		b.drain(q)
		return
	}
	if !errors.Is(err, transport.ErrNoRoute) {
		b.Errorf("publish returned %v; expected ErrNoRoute", err)
	}
	b.drain(q, "first", "last")
}

func testBindings(_ *testing.T, b *bench) {
	q := b.queue("q")
	q.Bindings = []transport.Binding{
		{Exchange: "second", ExchangeType: "topic", RoutingKey: "x.*"},
		{Exchange: "third", RoutingKey: "k"},
	}
	b.declare(q, q) // twice is as good as once
	b.mustPublishTo("q", "q", "own")
	b.mustPublishTo("second", "x.y", "topic")
	b.mustPublishTo("third", "k", "direct")
	b.mustPublishTo("", "q", "name")
	b.wantNoRoute("a key that no binding has", b.publishTo("second", "y.x", "x"))
	b.drain(q, "own", "topic", "direct", "name")
}

func testUnbound(_ *testing.T, b *bench) {
	q := transport.Queue{Name: "8d1a3b9e-0000-4000-8000-000000000001", Unbound: true, Transient: true, AutoDelete: true}
	c := b.consumeFrom(0, q)
	b.wantNoRoute("an exchange of the queue's name", b.publishTo(q.Name, q.Name, "x"))
	b.mustPublishTo("", q.Name, "reply")
	ds := b.receive(c, 1)
	b.wantIDs(ds, "reply")
	b.settle(c, transport.Ack, "", ds...)
}

func testMismatch(t *testing.T, b *bench) {
	plain, topic := b.queue("q"), b.queue("t")
	topic.Exchange, topic.ExchangeType = "x", "topic"
	b.declare(plain, topic)
	bounded, direct := b.queue("q"), topic
	bounded.Arguments = map[string]any{"x-max-length": 7}
	maps.Copy(bounded.Arguments, b.Arguments)
	direct.ExchangeType = "direct"
	for what, q := range map[string]transport.Queue{"arguments": bounded, "exchange type": direct} {
		err := b.transport.Declare(b.context(), q)
		if b.Virtual && err != nil || !b.Virtual && !errors.Is(err, transport.ErrMismatch) {
			t.Errorf("declare with another %s returned %v; expected ErrMismatch unless the broker is virtual", what, err)
		}
	}
	b.declare(plain, topic)
	b.publish("q", "works")
	b.drain(plain, "works")
}

func testBroadcastQueue(t *testing.T, b *bench) {
	q := transport.Queue{Name: "all", Exchange: "all", Broadcast: true}
	if err := b.transport.Declare(b.context(), q); b.Virtual {
		_, consuming := b.transport.Consume(b.context(), transport.ConsumeOptions{Queues: []transport.Queue{q}})
		for _, err := range []error{err, consuming} {
			if err == nil || !strings.Contains(err.Error(), "broadcast") {
				t.Errorf("error is %v; expected one that says broadcast", err)
			}
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	b.wantNoRoute("nobody listens", b.publishTo("all", "", "lost"))
	one := b.consumeFrom(0, q)
	other := &bench{T: t, Harness: b.Harness, transport: open(t, b.Harness)}
	two := other.consumeFrom(0, q)
	b.mustPublishTo("all", "", "for all")
	for _, c := range []transport.Consumer{one, two} {
		ds := b.receive(c, 1)
		b.wantIDs(ds, "for all")
		if ds[0].Queue != "all" {
			t.Errorf("it came from queue %q; expected the name that callers use", ds[0].Queue)
		}
		b.settle(c, transport.Ack, "", ds...)
	}
}
