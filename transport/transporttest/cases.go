package transporttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

func testMessageSurvives(t *testing.T, b *bench) {
	c := b.consume("q")
	ignore, index := true, 3
	m := &protocol.Message{
		Headers: protocol.Headers{Lang: "py", Task: "t.ünï", ID: "id", Shadow: "sh", ETA: "2030-01-01T00:00:00.000001+00:00",
			Group: "g", GroupIndex: &index, Retries: 2, TimeLimit: protocol.TimeLimit{Hard: 30, Soft: 20.5}, RootID: "root",
			ParentID: "parent", ArgsRepr: `('"\\',)`, KwargsRepr: "{}", Origin: "gen1@h", IgnoreResult: &ignore,
			StampedHeaders: []string{"s"}, Stamps: map[string]json.RawMessage{"s": json.RawMessage(`"v"`)},
			Extra: []protocol.Header{{Name: "x", Value: json.RawMessage(`{"a": [1.0, 12345678901234567890]}`)}}},
		Properties:  protocol.Properties{CorrelationID: "corr", ReplyTo: "reply", DeliveryMode: 1, Priority: 4, Expiration: "60000"},
		ContentType: "application/x-msgpack", ContentEncoding: "binary", Body: []byte{0, 1, 255, '"', '\n'},
	}
	if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
		t.Fatal(err)
	}
	got := b.receive(c, 1)[0].Message
	if !bytes.Equal(got.Body, m.Body) || got.ContentType != m.ContentType || got.ContentEncoding != m.ContentEncoding {
		t.Errorf("body came as %q, %s, %s", got.Body, got.ContentType, got.ContentEncoding)
	}
	wantHeaders, _ := json.Marshal(m.Headers)
	gotHeaders, _ := json.Marshal(got.Headers)
	if !bytes.Equal(wantHeaders, gotHeaders) {
		t.Errorf("headers came as\n%s\nexpected\n%s", gotHeaders, wantHeaders)
	}
	p := got.Properties
	if p.CorrelationID != "corr" || p.ReplyTo != "reply" || p.DeliveryMode != 1 || p.Priority != 4 || p.Expiration != "60000" ||
		p.DeliveryInfo.Exchange != "" || p.DeliveryInfo.RoutingKey != "q" {
		t.Errorf("properties came as %+v", p)
	}
}

func testOrder(_ *testing.T, b *bench) {
	c := b.consume("q")
	want := sequence(100)
	for batch := range slices.Chunk(want, 30) {
		b.publish("q", batch...)
	}
	b.wantIDs(b.receive(c, 100), want...)
}

func testPriorities(t *testing.T, b *bench) {
	for _, p := range []int{9, 0, 3, 6, 0} {
		m := message(string(rune('0' + p)))
		m.Properties.Priority = p
		if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
			t.Fatal(err)
		}
	}
	c := b.consume("q")
	want := []string{"0", "0", "3", "6", "9"}
	if !b.LowFirst {
		slices.Reverse(want)
	}
	ds := b.receive(c, 5)
	b.wantIDs(ds, want...)
	// A returned message goes back to its own priority.
	b.settle(c, transport.Return, "", ds[4])
	b.settle(c, transport.Return, "", ds[0])
	b.wantIDs(b.receive(c, 2), want[0], want[4])
}

func testMax(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", sequence(10)...)
	ds, err := c.Receive(b.context(), 3)
	if err != nil || len(ds) == 0 || len(ds) > 3 {
		t.Fatalf("received %d, %v; expected 1 to 3", len(ds), err)
	}
}

func testReturn(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a", "b", "c", "d")
	ds := b.receive(c, 3)
	b.settle(c, transport.Return, "", ds...)
	again := b.receive(c, 4)
	b.wantIDs(again, "a", "b", "c", "d")
	if !again[0].Redelivered || again[3].Redelivered {
		t.Errorf("redelivered is %v for a returned and %v for a fresh message", again[0].Redelivered, again[3].Redelivered)
	}
}

func testRequeue(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a", "b")
	b.settle(c, transport.Requeue, "", b.receive(c, 1)...)
	again := b.receive(c, 2)
	b.wantIDs(again, "b", "a")
	if !again[1].Redelivered {
		t.Error("a requeued message is not marked redelivered")
	}
}

func testRequeueOrder(_ *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a", "b", "c", "d")
	ds := b.receive(c, 3)
	b.settle(c, transport.Requeue, "", ds...)
	b.wantIDs(b.receive(c, 4), "d", "a", "b", "c")
}

func testCloseReturns(t *testing.T, b *bench) {
	b.publish("q", "a", "b", "c")
	first := b.consume("q")
	b.receive(first, 2)
	if err := first.Close(b.context()); err != nil {
		t.Fatal(err)
	}
	b.wantIDs(b.receive(b.consume("q"), 3), "a", "b", "c")
}

func testQuarantine(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "bad", "good")
	ds := b.receive(c, 2)
	b.settle(c, transport.Quarantine, "no such task", ds[0])
	b.settle(c, transport.Ack, "", ds[1])
	b.empty()
	in := b.transport.(transport.Inspector)
	qs, err := in.Quarantined(b.context(), "q", 10)
	if err != nil || len(qs) != 1 {
		t.Fatalf("quarantined: %v, %v; expected one", qs, err)
	}
	if qs[0].Reason != "no such task" || !bytes.Equal(qs[0].Raw, ds[0].Raw) || qs[0].Time.IsZero() || qs[0].Queue != "q" {
		t.Errorf("quarantine holds %+v", qs[0])
	}
	if n, err := in.PurgeQuarantine(b.context(), "q"); n != 1 || err != nil {
		t.Errorf("purged %d, %v; expected 1", n, err)
	}
	if d := b.depth("q"); d.Quarantined != 0 {
		t.Errorf("%d quarantined after the purge", d.Quarantined)
	}
}

// hostile are shapes that kill a Python worker, or that one loses (transports.md 1.3).
var hostile = []string{
	`not json`, ``, `[1]`, `5`, `null`, `{}`, `{"properties": null}`, `{"properties": {}, "headers": null}`,
	`{"body": 5, "properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
	`{"body": "!!", "properties": {"body_encoding": "base64", "delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
	`{"body": "", "properties": {"body_encoding": "hex", "delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
	`{"body": "", "properties": {"delivery_tag": "t"}}`, "{\"properties\": {}}\x00", `{"properties": {}`,
}

func testUndecodable(t *testing.T, b *bench) {
	if b.Inject == nil {
		b.Skip("this broker takes only well-formed messages")
	}
	c := b.consume("q")
	for _, raw := range hostile {
		b.Inject(t, "q", []byte(raw))
	}
	b.publish("q", "good")
	// Each bad one is either a delivery with an error, or already in quarantine; the good one behind them arrives.
	for done := false; !done; {
		for _, d := range b.receive(c, 1) {
			if done = d.Err == nil; done {
				b.wantIDs([]transport.Delivery{d}, "good")
				b.settle(c, transport.Ack, "", d)
			} else {
				b.settle(c, transport.Quarantine, d.Err.Error(), d)
			}
		}
	}
	b.empty()
	qs, err := b.transport.(transport.Inspector).Quarantined(b.context(), "q", 100)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, q := range qs {
		found[string(q.Raw)] = q.Reason != ""
	}
	for _, raw := range hostile {
		if !found[raw] {
			t.Errorf("%q is not in quarantine with a reason", raw)
		}
	}
}

// odd are headers that Python writes and reads, and other JSON readers stumble over.
var odd = []string{
	`"\ud800"`, `"a\\ud800\udfff\ud83d"`, `"\u0000"`, `NaN`, `[-Infinity, Infinity]`, `1e400`, `123456789012345678901234567890`, `-0.0`,
	`{"": {"": []}}`, `"\/\b\f"`, strings.Repeat("[", 300) + strings.Repeat("]", 300), `"ünï ☃ 𝄞"`,
}

func testOddButValid(t *testing.T, b *bench) {
	if b.Inject == nil {
		b.Skip("this broker takes only what a client can build")
	}
	c := b.consume("q")
	for _, value := range odd {
		if v := any(nil); b.GoJSON && json.Unmarshal([]byte(value), &v) != nil {
			continue
		}
		raw := `{"body": "", "content-type": "application/json", "headers": {"task": "t", "id": "x", "odd": ` + value + `}, ` +
			`"properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}, "priority": 0}}`
		b.Inject(t, "q", []byte(raw))
		d := b.receive(c, 1)[0]
		if d.Err != nil || string(d.Raw) != raw || string(d.Message.Headers.Extra[0].Value) != value {
			t.Errorf("header %.60s came as %+v, %v", value, d.Message, d.Err)
		}
		b.settle(c, transport.Ack, "", d)
	}
}

func testSettleTwice(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a")
	ds := b.receive(c, 1)
	b.settle(c, transport.Ack, "", ds...)
	lost, err := c.Settle(b.context(), []transport.Settlement{{Delivery: &ds[0]}})
	if err != nil || lost != 1 {
		t.Errorf("second settle: lost %d, %v; expected 1", lost, err)
	}
}

func testFair(t *testing.T, b *bench) {
	b.publish("a", sequence(20)...)
	b.publish("b", sequence(20)...)
	c := b.consume("a", "b")
	count := map[string]int{}
	for _, d := range b.receive(c, 20) {
		count[d.Queue]++
	}
	if count["a"] < 5 || count["b"] < 5 {
		t.Errorf("of 20 messages %v came; expected both queues to be served", count)
	}
}

func testTwoConsumers(t *testing.T, b *bench) {
	one, two := b.consume("q"), b.consume("q")
	b.publish("q", "a", "b")
	first, second := b.receive(one, 1), b.receive(two, 1)
	if ids(first)[0] == ids(second)[0] {
		t.Errorf("both consumers received %s", ids(first)[0])
	}
	b.settle(two, transport.Ack, "", second...)
	b.settle(one, transport.Ack, "", first...)
	b.empty()
}

func testExchanges(t *testing.T, b *bench) {
	queues := []transport.Queue{
		{Name: "d1", Exchange: "direct", RoutingKey: "k"}, {Name: "d2", Exchange: "direct", RoutingKey: "other"},
		{Name: "t1", Exchange: "topic", ExchangeType: "topic", RoutingKey: "*.b"},
		{Name: "t2", Exchange: "topic", ExchangeType: "topic", RoutingKey: "a.#"},
	}
	for _, q := range queues {
		if err := b.transport.Declare(b.context(), q); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []transport.Publication{
		{Message: message("direct"), Exchange: "direct", RoutingKey: "k"},
		{Message: message("one"), Exchange: "topic", RoutingKey: "a.b"},
		{Message: message("two"), Exchange: "topic", RoutingKey: "a.b.c"},
	} {
		if err := b.transport.Publish(b.context(), []transport.Publication{p}); err != nil {
			t.Fatal(err)
		}
	}
	for queue, want := range map[string][]string{"d1": {"direct"}, "d2": nil, "t1": {"one"}, "t2": {"one", "two"}} {
		if got := b.depth(queue).Messages; got != int64(len(want)) {
			t.Errorf("%s has %d messages; expected %v", queue, got, want)
			continue
		}
		if len(want) > 0 {
			o := transport.ConsumeOptions{Queues: []transport.Queue{queues[slices.IndexFunc(queues, func(q transport.Queue) bool { return q.Name == queue })]}}
			c, err := b.transport.Consume(b.context(), o)
			if err != nil {
				t.Fatal(err)
			}
			ds := b.receive(c, len(want))
			b.wantIDs(ds, want...)
			b.settle(c, transport.Ack, "", ds...)
			if err := c.Close(b.context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func testNoRoute(t *testing.T, b *bench) {
	err := b.transport.Publish(b.context(), []transport.Publication{{Message: message("x"), Exchange: "nowhere", RoutingKey: "k"}})
	var p *transport.PublishError
	if !errors.Is(err, transport.ErrNoRoute) || !errors.As(err, &p) || p.InDoubt {
		t.Errorf("publish returned %v; expected a PublishError, not in doubt, of ErrNoRoute", err)
	}
}

func testBroadcast(t *testing.T, b *bench) {
	var subs []transport.Subscription
	for _, pattern := range []string{"", "worker.#"} {
		s, err := open(t, b.Harness).Subscribe(b.context(), "ev", pattern)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Errorf("close subscription: %v", err)
			}
		}()
		subs = append(subs, s)
	}
	for key, s := range map[string]transport.Subscription{"": subs[0], "worker.online": subs[1]} {
		if err := b.transport.Broadcast(b.context(), "ev", key, message("for "+key)); err != nil {
			t.Fatal(err)
		}
		d, err := s.Receive(b.context())
		if err != nil || d.Err != nil || d.Message.Headers.ID != "for "+key {
			t.Errorf("subscription got %+v, %v; expected the message for %q", d, err, key)
		}
	}
}

func testDepths(t *testing.T, b *bench) {
	b.publish("q", "a", "b", "c")
	c := b.consume("q")
	ds := b.receive(c, 1)
	if d := b.depth("q"); d.Messages != 2 || d.Unacked != 1 && d.Unacked != -1 {
		t.Errorf("depth is %+v; expected 2 waiting and 1 unacked", d)
	}
	b.settle(c, transport.Ack, "", ds...)
	in := b.transport.(transport.Inspector)
	names, err := in.Queues(b.context())
	if err != nil || !slices.Contains(names, "q") {
		t.Errorf("queues are %v, %v; expected q among them", names, err)
	}
	if n, err := in.Purge(b.context(), "q"); err != nil || n != 2 {
		t.Errorf("purged %d, %v; expected 2", n, err)
	}
	b.empty()
}
