package transporttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

func testMessageSurvives(t *testing.T, b *bench) {
	c := b.consume("q")
	m := fullMessage(b.Virtual)
	if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
		t.Fatal(err)
	}
	got := b.receive(c, 1)[0].Message
	wantSame(t, got, m)
	if i := got.Properties.DeliveryInfo; i.Exchange != "" || i.RoutingKey != "q" {
		t.Errorf("delivery info came as %+v", i)
	}
}

// fullMessage is a message that has all there is. JSON holds integers of any size, AMQP those of 64 bits.
func fullMessage(bigIntegers bool) *protocol.Message {
	ignore, index := true, 3
	extra := `{"a": [1.0, 9007199254740993, -5000000000, 1.5, null, false, {}]}`
	if bigIntegers {
		extra = `{"a": [1.0, 12345678901234567890]}`
	}
	return &protocol.Message{
		Headers: protocol.Headers{Lang: "py", Task: "t.ünï", ID: "id", Shadow: "sh", ETA: "2030-01-01T00:00:00.000001+00:00",
			Group: "g", GroupIndex: &index, Retries: 2, TimeLimit: protocol.TimeLimit{Hard: 30, Soft: 20.5}, RootID: "root",
			ParentID: "parent", ArgsRepr: `('"\\',)`, KwargsRepr: "{}", Origin: "gen1@h", IgnoreResult: &ignore,
			StampedHeaders: []string{"s"}, Stamps: map[string]json.RawMessage{"s": json.RawMessage(`"v"`)},
			Extra: []protocol.Header{{Name: "x", Value: json.RawMessage(extra)}}},
		Properties:  protocol.Properties{CorrelationID: "corr", ReplyTo: "reply", DeliveryMode: 1, Priority: 4, Expiration: "60000"},
		ContentType: "application/x-msgpack", ContentEncoding: "binary", Body: []byte{0, 1, 255, '"', '\n'},
	}
}

// wantSame compares what a receiver sees of two messages: the body by bytes, headers by value.
func wantSame(t *testing.T, got, want *protocol.Message) {
	t.Helper()
	if !bytes.Equal(got.Body, want.Body) || got.ContentType != want.ContentType || got.ContentEncoding != want.ContentEncoding {
		t.Errorf("body came as %q, %s, %s", got.Body, got.ContentType, got.ContentEncoding)
	}
	wantHeaders, err := json.Marshal(want.Headers)
	if err != nil {
		t.Fatal(err)
	}
	gotHeaders, err := json.Marshal(got.Headers)
	if err != nil || !sameJSON(gotHeaders, wantHeaders) {
		t.Errorf("headers came as\n%s, %v\nexpected\n%s", gotHeaders, err, wantHeaders)
	}
	p, w := got.Properties, want.Properties
	if p.CorrelationID != w.CorrelationID || p.ReplyTo != w.ReplyTo || p.DeliveryMode != w.DeliveryMode || p.Priority != w.Priority ||
		p.Expiration != w.Expiration {
		t.Errorf("properties came as %+v; expected %+v", p, w)
	}
}

// sameJSON compares values as Python does: 1 and 1.0 differ in type, 1.0 and 1e0 do not.
func sameJSON(a, b []byte) bool {
	canonical := func(text []byte) (string, bool) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		var v any
		err := d.Decode(&v)
		return fmt.Sprintf("%#v", typed(v)), err == nil
	}
	va, okA := canonical(a)
	vb, okB := canonical(b)
	return okA && okB && va == vb
}

func typed(v any) any {
	switch v := v.(type) {
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			f, err := v.Float64()
			return []any{f, err}
		}
		return v
	case []any:
		for i := range v {
			v[i] = typed(v[i])
		}
	case map[string]any:
		for name := range v {
			v[name] = typed(v[name])
		}
	}
	return v
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
	q := b.queue("q")
	if !b.NoPriorities {
		if q.Arguments == nil {
			q.Arguments = map[string]any{}
		}
		q.Arguments["x-max-priority"] = 10
	}
	b.declare(q)
	for _, p := range []int{9, 0, 3, 6, 0} {
		m := message(string(rune('0' + p)))
		m.Properties.Priority = p
		if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
			t.Fatal(err)
		}
	}
	c := b.consumeFrom(0, q)
	if b.NoPriorities {
		b.wantIDs(b.receive(c, 5), "9", "0", "3", "6", "0")
		return
	}
	want := []string{"0", "0", "3", "6", "9"}
	if !b.LowFirst {
		slices.Reverse(want)
	}
	ds := b.receive(c, 5)
	b.wantIDs(ds, want...)
	// A returned message goes back to its own priority.
	b.settle(c, transport.Ack, "", ds[1:4]...)
	b.settle(c, transport.Return, "", ds[4])
	b.settle(c, transport.Return, "", ds[0])
	b.close(c)
	b.wantIDs(b.receive(b.consumeFrom(0, q), 2), want[0], want[4])
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
	c := b.consumeFrom(3, b.queue("q"))
	b.publish("q", "a", "b", "c", "d")
	b.settle(c, transport.Return, "", b.receive(c, 3)...)
	b.close(c) // until then it may get them again
	again := b.receive(b.consume("q"), 4)
	if b.Arguments["x-queue-type"] == "quorum" {
		// Such a queue serves what comes back in the order in which it came back, and the closing consumer may have had
		// some of it in hand again.
		slices.SortFunc(again, func(x, y transport.Delivery) int { return strings.Compare(x.Message.Headers.ID, y.Message.Headers.ID) })
		b.wantIDs(again, "a", "b", "c", "d")
		return
	}
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
	if b.Virtual {
		b.wantIDs(again, "b", "a") // at the back; elsewhere b may have been with the consumer, or not
	}
	slices.SortFunc(again, func(x, y transport.Delivery) int { return strings.Compare(x.Message.Headers.ID, y.Message.Headers.ID) })
	b.wantIDs(again, "a", "b")
	if !again[0].Redelivered || again[1].Redelivered {
		t.Errorf("redelivered is %v for a requeued and %v for a fresh message", again[0].Redelivered, again[1].Redelivered)
	}
}

func testRequeueOrder(_ *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a", "b", "c", "d")
	ds := b.receive(c, 3)
	b.settle(c, transport.Requeue, "", ds...)
	again := b.receive(c, 4)
	if b.Virtual {
		b.wantIDs(again, "d", "a", "b", "c")
	}
	requeued := slices.DeleteFunc(again, func(d transport.Delivery) bool { return d.Message.Headers.ID == "d" })
	b.wantIDs(requeued, "a", "b", "c")
}

func testCloseReturns(_ *testing.T, b *bench) {
	b.declare(b.queue("q"))
	b.publish("q", "a", "b", "c")
	first := b.consume("q")
	b.receive(first, 2)
	b.close(first)
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
	c := b.consume("q")
	for _, raw := range hostile {
		b.Inject(t, "q", []byte(raw))
	}
	b.publish("q", "good")
	// Each bad one is either a delivery with an error, or already in quarantine, or, where the body is all there is to
	// spoil, a message without a task; the good one behind them arrives.
	for done := false; !done; {
		d := b.receive(c, 1)[0]
		switch {
		case d.Err != nil:
			b.settle(c, transport.Quarantine, d.Err.Error(), d)
		case !b.Virtual && d.Message.Headers.Task == "":
			b.settle(c, transport.Quarantine, "no task", d)
		default:
			b.wantIDs([]transport.Delivery{d}, "good")
			b.settle(c, transport.Ack, "", d)
			done = true
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

// oddInAMQP are those of them that a table of AMQP holds too.
var oddInAMQP = []string{
	`""`, `null`, `[null, [], {}]`, `{"": {"": []}}`, `-1.5e-300`, `-9223372036854775808`, `9223372036854775807`, `"\/\b\f"`,
	strings.Repeat("[", 100) + strings.Repeat("]", 100), `"ünï ☃ 𝄞"`,
}

func testOddButValid(t *testing.T, b *bench) {
	c := b.consume("q")
	if !b.Virtual {
		for _, value := range oddInAMQP {
			m := message("x")
			m.Properties.DeliveryMode = 2
			m.Headers.Extra = []protocol.Header{{Name: "odd", Value: json.RawMessage(value)}}
			if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
				t.Fatalf("header %.60s: %v", value, err)
			}
			d := b.receive(c, 1)[0]
			if d.Err != nil {
				t.Fatalf("header %.60s came as %v", value, d.Err)
			}
			wantSame(t, d.Message, m)
			b.settle(c, transport.Ack, "", d)
		}
		return
	}
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
	b.declare(b.queue("a"), b.queue("b"))
	b.publish("a", sequence(20)...)
	b.publish("b", sequence(20)...)
	c := b.consumeFrom(10, b.queue("a"), b.queue("b"))
	count := map[string]int{}
	for _, d := range b.receive(c, 20) {
		count[d.Queue]++
	}
	if count["a"] < 5 || count["b"] < 5 {
		t.Errorf("of 20 messages %v came; expected both queues to be served", count)
	}
}

func testTwoConsumers(t *testing.T, b *bench) {
	one, two := b.consumeFrom(1, b.queue("q")), b.consumeFrom(1, b.queue("q"))
	b.publish("q", "a", "b")
	first, second := b.receive(one, 1), b.receive(two, 1)
	if ids(first)[0] == ids(second)[0] {
		t.Errorf("both consumers received %s", ids(first)[0])
	}
	b.settle(two, transport.Ack, "", second...)
	b.settle(one, transport.Ack, "", first...)
	b.empty()
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

// testReplies is about replies of remote control: who has subscribed gets those for it, and who has gone leaves nothing.
func testReplies(t *testing.T, b *bench) {
	reply := func(key, id string) {
		t.Helper()
		p := transport.Publication{Message: message(id), Exchange: protocol.PidboxReplyExchange, RoutingKey: key, Optional: true}
		if err := b.transport.Publish(b.context(), []transport.Publication{p}); err != nil {
			t.Fatal(err)
		}
	}
	reply("one", "too early")
	heard := map[string]transport.Subscription{}
	for _, key := range []string{"one", "other", "gone"} {
		s, err := open(t, b.Harness).Subscribe(b.context(), protocol.PidboxReplyExchange, key)
		if err != nil {
			t.Fatal(err)
		}
		heard[key] = s
	}
	closed := func(key string) {
		if err := heard[key].Close(); err != nil {
			t.Errorf("close subscription: %v", err)
		}
	}
	closed("gone")
	reply("gone", "too late")
	for _, key := range []string{"one", "other"} {
		defer closed(key)
		reply(key, "first of "+key)
		reply(key, "second of "+key)
		for _, n := range []string{"first", "second"} {
			d, err := heard[key].Receive(b.context())
			if err != nil || d.Err != nil || d.Message.Headers.ID != n+" of "+key {
				t.Errorf("subscription %q got %+v, %v; expected its %s", key, d, err, n)
			}
		}
	}
	if names, err := b.transport.(transport.Inspector).Queues(b.context()); err != nil || len(names) > 0 {
		t.Errorf("queues are %q, %v; expected none of mailboxes", names, err)
	}
}

func testDepths(t *testing.T, b *bench) {
	b.declare(b.queue("q"))
	b.publish("q", "a", "b", "c")
	b.wantDepth("q", 3, 0)
	c := b.consumeFrom(1, b.queue("q"))
	ds := b.receive(c, 1)
	b.wantDepth("q", 2, 1)
	in := b.transport.(transport.Inspector)
	names, err := in.Queues(b.context())
	if err != nil || !slices.Contains(names, "q") {
		t.Errorf("queues are %v, %v; expected q among them", names, err)
	}
	if n, err := in.Purge(b.context(), "q"); err != nil || n != 2 {
		t.Errorf("purged %d, %v; expected 2", n, err)
	}
	b.settle(c, transport.Ack, "", ds...)
	b.empty()
}
