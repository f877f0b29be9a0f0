package transporttest

import (
	"context"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// rest is how long the suite has a message rest in the broker, which counts whole seconds.
const rest = 2 * time.Second

// brokerHeader is a header that RabbitMQ adds to what has rested in it, or come before.
var brokerHeader = regexp.MustCompile(`^x-(delivery-count|death|(first|last)-death-(exchange|queue|reason))$`)

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
	m := fullMessage(false)
	m.Properties.Expiration = ""
	if err := b.transport.Publish(b.context(), []transport.Publication{{Message: m, RoutingKey: "q"}}); err != nil {
		t.Fatal(err)
	}
	d := b.receive(c, 1)[0]
	began := time.Now()
	b.delay(c, rest, d)
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
	withoutBrokerHeaders(again[0].Message)
	wantSame(t, again[0].Message, m)
	if again[0].Queue != "q" || again[0].Redelivered {
		t.Errorf("it came back from queue %q, redelivered %v", again[0].Queue, again[0].Redelivered)
	}
	b.settle(c, transport.Ack, "", again...)
	b.empty()
}

// testDelayedStayRedelivered: what was handed out before still says so after its delay, until Begin has counted it, and what
// was counted is not forgotten.
func testDelayedStayRedelivered(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "poison")
	b.settle(c, transport.Return, "", b.receive(c, 1)...) // what becomes of it when its worker dies
	for range 2 {
		b.delay(c, time.Second, b.receive(c, 1)...)
	}
	d := b.receive(c, 1)[0]
	if !d.Redelivered {
		t.Error("delayed, a redelivered message comes as if it had never been handed out")
	}
	b.begin(c, &d)
	b.delay(c, time.Second, d)
	d = b.receive(c, 1)[0]
	b.begin(c, &d)
	if got := d.Message.Headers.Attempts(); got != 2 {
		t.Errorf("begun, delayed and begun again, %d attempts are counted", got)
	}
	b.settle(c, transport.Ack, "", d)
	b.empty()
}

// withoutBrokerHeaders removes what the broker has added.
func withoutBrokerHeaders(m *protocol.Message) {
	h := &m.Headers
	h.Extra = slices.DeleteFunc(h.Extra, func(e protocol.Header) bool { return brokerHeader.MatchString(e.Name) })
}

// delay gives deliveries back until later, all of them.
func (b *bench) delay(c transport.Consumer, after time.Duration, ds ...transport.Delivery) {
	b.Helper()
	delayer, ok := c.(transport.Delayer)
	if !ok {
		b.Fatalf("%T is no transport.Delayer", c)
	}
	var batch []transport.Delayed
	for i := range ds {
		batch = append(batch, transport.Delayed{Delivery: &ds[i], After: after})
	}
	kept, err := delayer.Delay(b.context(), batch)
	if err != nil || len(kept) > 0 {
		b.Fatalf("delay kept %v, %v", kept, err)
	}
}

func testDelayOrder(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "third", "first", "second")
	ds := b.receive(c, 3)
	began := time.Now()
	b.delay(c, rest+2*time.Second, ds[0])
	b.delay(c, rest, ds[1])
	b.delay(c, rest+time.Second, ds[2])
	for i, want := range []string{"first", "second", "third"} {
		again := b.receive(c, 1)
		b.wantIDs(again, want)
		if after := time.Since(began); after < rest+time.Duration(i-1)*time.Second {
			t.Errorf("%s came after %v", want, after)
		}
		b.settle(c, transport.Ack, "", again...)
	}
	b.empty()
}

// testDelayedSurvive closes the consumer that has delayed: what it has held goes back at once, what it has delayed later.
func testDelayedSurvive(t *testing.T, b *bench) {
	first := b.consume("q")
	b.publish("q", "later", "held")
	ds := b.receive(first, 2)
	began := time.Now()
	b.delay(first, rest, ds[0])
	b.close(first)
	second := b.consume("q")
	again := b.receive(second, 1)
	b.wantIDs(again, "held")
	b.settle(second, transport.Ack, "", again...)
	again = b.receive(second, 1)
	b.wantIDs(again, "later")
	if after := time.Since(began); after < rest-time.Second || again[0].Redelivered {
		t.Errorf("it came after %v, redelivered %v", after, again[0].Redelivered)
	}
	b.settle(second, transport.Ack, "", again...)
	b.empty()
}

// testDelayedShared has two consumers receive what one of them has delayed, each message once.
func testDelayedShared(t *testing.T, b *bench) {
	const n = 200
	one, two := b.consume("q"), b.consume("q")
	b.publish("q", sequence(n)...)
	ctx, cancel := context.WithCancel(b.context())
	var mu sync.Mutex
	left, seen := n, map[string]int{}
	var receiving sync.WaitGroup
	for _, c := range []transport.Consumer{one, two} {
		receiving.Go(func() {
			delayer := c.(transport.Delayer)
			for {
				ds, err := c.Receive(ctx, 20)
				if err != nil {
					return
				}
				for i := range ds {
					d := &ds[i]
					mu.Lock()
					seen[d.Message.Headers.ID]++
					first := seen[d.Message.Headers.ID] == 1
					mu.Unlock()
					if first {
						if kept, err := delayer.Delay(b.context(), []transport.Delayed{{Delivery: d, After: rest}}); err != nil || len(kept) > 0 {
							t.Errorf("delay kept %v, %v", kept, err)
						}
						continue
					}
					if lost, err := c.Settle(b.context(), []transport.Settlement{{Delivery: d}}); err != nil || lost > 0 {
						t.Errorf("settle: lost %d, %v", lost, err)
					}
					mu.Lock()
					if left--; left == 0 {
						cancel()
					}
					mu.Unlock()
				}
			}
		})
	}
	receiving.Wait()
	cancel()
	for id, times := range seen {
		if times != 2 {
			t.Errorf("%s came %d times; expected once before and once after its delay", id, times)
		}
	}
	if left != 0 {
		t.Errorf("%d of %d did not come back", left, n)
	}
	b.empty()
}

// testDelayedCounted asks a broker that can tell what is delayed.
func testDelayedCounted(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "a", "b", "c")
	ds := b.receive(c, 3)
	b.delay(c, time.Hour, ds[:2]...)
	b.publish("q", "d")
	d := b.depth("q")
	if !b.Virtual {
		if d.Delayed != -1 {
			t.Errorf("%d are delayed; expected -1, for AMQP cannot tell", d.Delayed)
		}
		return
	}
	if d.Delayed != 2 || d.Unacked != 1 || d.Messages != 1 {
		t.Errorf("depth is %+v; expected 2 delayed, 1 unacked, 1 waiting", d)
	}
	if n, err := b.transport.(transport.Inspector).Purge(b.context(), "q"); n != 3 || err != nil {
		t.Errorf("purged %d, %v; expected 3", n, err)
	}
	if d := b.depth("q"); d.Delayed != 0 || d.Unacked != 1 || d.Messages != 0 {
		t.Errorf("after the purge depth is %+v; expected what is held alone", d)
	}
	b.settle(c, transport.Ack, "", ds[2])
	b.empty()
}
