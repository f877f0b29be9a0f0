package transporttest

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// rest is how long the suite has a message rest in the broker, which counts whole seconds.
const rest = 2 * time.Second

// brokerHeader is a header that RabbitMQ adds to what has rested in it.
var brokerHeader = regexp.MustCompile(`^x-(death|(first|last)-death-(exchange|queue|reason))$`)

func testDelayedPublication(t *testing.T, b *bench) {
	if b.Virtual { // such a broker ignores it, and the message's eta is for the receiver
		c := b.consume("q")
		p := transport.Publication{Message: message("now"), RoutingKey: "q", Delay: time.Hour}
		if err := b.transport.Publish(b.context(), []transport.Publication{p}); err != nil {
			t.Fatal(err)
		}
		b.wantIDs(b.receive(c, 1), "now")
		return
	}
	q := b.queue("q")
	q.Exchange, q.ExchangeType, q.RoutingKey, q.Delayed = "topic", "topic", "a.b", true
	c := b.consumeFrom(0, q)
	began := time.Now()
	for _, p := range []transport.Publication{
		{Message: message("by topic"), Exchange: "topic", RoutingKey: "a.b", Delay: rest + time.Second},
		{Message: message("by name"), RoutingKey: "q", Delay: rest},
		{Message: message("now"), Exchange: "topic", RoutingKey: "a.b", Delay: time.Second - 1}, // rounded down
	} {
		if err := b.transport.Publish(b.context(), []transport.Publication{p}); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct {
		id   string
		rest time.Duration
	}{{"now", 0}, {"by name", rest}, {"by topic", rest + time.Second}} {
		ds := b.receive(c, 1)
		b.wantIDs(ds, want.id)
		if after := time.Since(began); after < want.rest-time.Second {
			t.Errorf("%s came after %v; it had to rest for %v", want.id, after, want.rest)
		}
		b.settle(c, transport.Ack, "", ds...)
	}
	b.empty()
}

func testDelayer(t *testing.T, b *bench) {
	c := b.consume("q")
	delayer, ok := c.(transport.Delayer)
	if ok == b.Virtual {
		t.Fatalf("%T is a transport.Delayer: %v; expected %v", c, ok, !ok)
	}
	if !ok {
		return
	}
	m := fullMessage(false)
	m.Properties.Expiration = ""
	if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
		t.Fatal(err)
	}
	d := b.receive(c, 1)[0]
	began := time.Now()
	kept, err := delayer.Delay(b.context(), []transport.Delayed{{Delivery: &d, After: rest}})
	if err != nil || len(kept) > 0 {
		t.Fatalf("delay kept %v, %v", kept, err)
	}
	if lost, err := c.Settle(b.context(), []transport.Settlement{{Delivery: &d}}); lost != 1 || err != nil {
		t.Errorf("settled after Delay: lost %d, %v; expected 1, for Delay has settled it", lost, err)
	}
	b.publish("q", "in between")
	ds := b.receive(c, 1)
	b.wantIDs(ds, "in between")
	b.settle(c, transport.Ack, "", ds...)
	again := b.receive(c, 1)
	if after := time.Since(began); after < rest-time.Second {
		t.Errorf("it came back after %v; it had to rest for %v", after, rest)
	}
	h := &again[0].Message.Headers
	h.Extra = slices.DeleteFunc(h.Extra, func(e protocol.Header) bool { return brokerHeader.MatchString(e.Name) })
	wantSame(t, again[0].Message, m)
	if again[0].Queue != "q" {
		t.Errorf("it came back from queue %q", again[0].Queue)
	}
	b.settle(c, transport.Ack, "", again...)
	b.empty()
}
