// Package transporttest is the contract of a transport as tests. A driver passes by calling Run with a Harness.
package transporttest

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// patience bounds every wait of the suite; nothing in it takes long unless it fails.
const patience = 30 * time.Second

// Harness is one broker under test.
type Harness struct {
	// Open returns another connection to the broker. The suite closes it.
	Open func(t testing.TB) transport.Transport
	// Inject puts raw bytes into a queue as a foreign producer would: the whole envelope on a virtual broker, the body of
	// a message without headers on others.
	Inject func(t testing.TB, queue string, raw []byte)
	// Waiting returns when the consumer's Receive, called by another goroutine, waits at the broker. nil: the suite
	// goes by Receive asking its context for Done, which is a little earlier, and exact for a broker in this process.
	Waiting func(t testing.TB, c transport.Consumer)
	// GoJSON tells that the broker is a fake whose own check of JSON is Go's: what only Python takes is not tried on it.
	GoJSON bool
	// LowFirst tells that the broker serves lower numbers first (Redis) or higher ones (RabbitMQ, false).
	LowFirst bool
	// Virtual tells that the broker is not AMQP's but kombu's idea of one on something else (Redis, memory). Whoever
	// publishes by a queue's name makes the queue; a message that a batch cannot route keeps the whole batch back; headers
	// are JSON, with integers of any size; a queue declared in another way is no error; a Publication's Delay is ignored,
	// and there are no broadcast queues.
	Virtual bool
	// Arguments are added to every queue that the suite declares and that outlives its consumers: "x-queue-type".
	Arguments map[string]any
	// NoPriorities tells that these queues are served in order of arrival: quorum queues before RabbitMQ 4.0.
	NoPriorities bool
}

// Run runs the suite. newHarness is called once a test and returns an empty broker.
func Run(t *testing.T, newHarness func(t testing.TB) Harness) {
	for name, test := range map[string]func(*testing.T, *bench){
		"PublishReceiveAck":        testPublishReceiveAck,
		"MessageSurvivesUnchanged": testMessageSurvives,
		"OrderIsKept":              testOrder,
		"PrioritiesAreServed":      testPriorities,
		"MaxIsRespected":           testMax,
		"ReceiveWaits":             testReceiveWaits,
		"ReceiveEndsWithContext":   testReceiveContext,
		"CloseEndsReceive":         testCloseEndsReceive,
		"ReturnGoesToTheFront":     testReturn,
		"RequeueComesAgain":        testRequeue,
		"RequeueKeepsItsOrder":     testRequeueOrder,
		"CloseReturnsWhatIsHeld":   testCloseReturns,
		"QuarantineKeepsBytes":     testQuarantine,
		"UndecodableIsNotLost":     testUndecodable,
		"OddButValidIsDelivered":   testOddButValid,
		"SettleTwiceIsLost":        testSettleTwice,
		"ManyQueuesAreFair":        testFair,
		"QueueIsAdded":             testAdd,
		"QueueIsCancelled":         testCancel,
		"AddedAndCancelledInTurns": testAddAndCancel,
		"BeginCounts":              testBegin,
		"BeginCountsOnlyRuns":      testBegunCounts,
		"BegunIsSettledAsEver":     testBegunIsHeld,
		"TwoConsumersShare":        testTwoConsumers,
		"ExchangesRoute":           testExchanges,
		"NoRouteIsAnError":         testNoRoute,
		"NoRouteInABatch":          testNoRouteInBatch,
		"BindingsRoute":            testBindings,
		"UnboundByItsNameOnly":     testUnbound,
		"OtherPropertiesMismatch":  testMismatch,
		"BroadcastQueueIsForAll":   testBroadcastQueue,
		"DelayedPublication":       testDelayedPublication,
		"DelayerGivesBackInTime":   testDelayer,
		"DelayedInTheirOrder":      testDelayOrder,
		"DelayedStayRedelivered":   testDelayedStayRedelivered,
		"DelayedSurvive":           testDelayedSurvive,
		"DelayedAreShared":         testDelayedShared,
		"DelayedAreCounted":        testDelayedCounted,
		"BeginOfWhatIsLost":        testBeginLost,
		"CancelOfAll":              testCancelAll,
		"KeeperRemembers":          testKeeper,
		"PingIsAnswered":           testPing,
		"BroadcastReachesAll":      testBroadcast,
		"RepliesReachWhoAsked":     testReplies,
		"DepthsAndPurge":           testDepths,
		"BindingsAreListed":        testBindingList,
		"ConcurrentUse":            testConcurrent,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			test(t, &bench{T: t, Harness: h, transport: open(t, h)})
		})
	}
}

// bench is a test with its broker and one connection.
type bench struct {
	*testing.T
	Harness
	transport transport.Transport
}

func open(t testing.TB, h Harness) transport.Transport {
	t.Helper()
	tr := h.Open(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := tr.Close(ctx); err != nil {
			t.Errorf("close transport: %v", err)
		}
	})
	return tr
}

func (b *bench) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.Cleanup(cancel)
	return ctx
}

// message makes a small task message.
func message(id string) *protocol.Message {
	return &protocol.Message{
		Headers:     protocol.Headers{Lang: "go", Task: "tasks.add", ID: id, RootID: id},
		Properties:  protocol.Properties{CorrelationID: id},
		ContentType: "application/json", ContentEncoding: "utf-8", Body: []byte(`[[1,2],{},null]`),
	}
}

func (b *bench) publish(queue string, ids ...string) {
	b.Helper()
	var batch []transport.Publication
	for _, id := range ids {
		batch = append(batch, transport.Publication{Message: message(id), RoutingKey: queue})
	}
	if err := b.transport.Publish(b.context(), batch); err != nil {
		b.Fatalf("publish: %v", err)
	}
}

// queue is a queue as this broker's suite declares it.
func (b *bench) queue(name string) transport.Queue {
	return transport.Queue{Name: name, Arguments: maps.Clone(b.Arguments)}
}

// declare makes queues exist: a broker need not take messages for one that does not.
func (b *bench) declare(queues ...transport.Queue) {
	b.Helper()
	for _, q := range queues {
		if err := b.transport.Declare(b.context(), q); err != nil {
			b.Fatalf("declare %s: %v", q.Name, err)
		}
	}
}

// consume opens a consumer that the test's end closes.
func (b *bench) consume(queues ...string) transport.Consumer {
	b.Helper()
	var qs []transport.Queue
	for _, q := range queues {
		qs = append(qs, b.queue(q))
	}
	return b.consumeFrom(0, qs...)
}

// consumeFrom is consume with a prefetch. A broker that pushes hands out so many of each queue, unasked.
func (b *bench) consumeFrom(prefetch int, queues ...transport.Queue) transport.Consumer {
	b.Helper()
	c, err := b.transport.Consume(b.context(), transport.ConsumeOptions{Queues: queues, Prefetch: prefetch})
	if err != nil {
		b.Fatalf("consume: %v", err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			b.Errorf("close consumer: %v", err)
		}
	})
	return c
}

// receive takes exactly n deliveries.
func (b *bench) receive(c transport.Consumer, n int) []transport.Delivery {
	b.Helper()
	var all []transport.Delivery
	for len(all) < n {
		batch, err := c.Receive(b.context(), n-len(all))
		if err != nil {
			b.Fatalf("receive after %d of %d: %v", len(all), n, err)
		}
		all = append(all, batch...)
	}
	return all
}

func (b *bench) settle(c transport.Consumer, verdict transport.Verdict, reason string, ds ...transport.Delivery) {
	b.Helper()
	var batch []transport.Settlement
	for i := range ds {
		batch = append(batch, transport.Settlement{Delivery: &ds[i], Verdict: verdict, Reason: reason})
	}
	lost, err := c.Settle(b.context(), batch)
	if err != nil || lost != 0 {
		b.Fatalf("settle: lost %d, error %v", lost, err)
	}
}

// close closes a consumer before the test's end does.
func (b *bench) close(c transport.Consumer) {
	b.Helper()
	if err := c.Close(b.context()); err != nil {
		b.Fatalf("close consumer: %v", err)
	}
}

// empty waits until nothing waits and nothing is held in queue q.
func (b *bench) empty() {
	b.Helper()
	b.wantDepth("q", 0, 0)
}

// wantDepth waits until a queue has so many messages waiting and held. A broker may count late, and not what is held.
func (b *bench) wantDepth(queue string, messages, unacked int64) {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		d := b.depth(queue)
		if d.Error == "" && d.Messages == messages && (d.Unacked == unacked || d.Unacked == -1) {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("%s is %+v; expected %d waiting and %d unacked", queue, d, messages, unacked)
		}
	}
}

func (b *bench) depth(queue string) transport.Depth {
	b.Helper()
	in, ok := b.transport.(transport.Inspector)
	if !ok {
		b.Fatalf("%T is no transport.Inspector", b.transport)
	}
	d, err := in.Depths(b.context(), []string{queue})
	if err != nil {
		b.Fatalf("depths: %v", err)
	}
	return d[0]
}

func ids(ds []transport.Delivery) []string {
	out := make([]string, len(ds))
	for i, d := range ds {
		if d.Message != nil {
			out[i] = d.Message.Headers.ID
		}
	}
	return out
}

func (b *bench) wantIDs(ds []transport.Delivery, want ...string) {
	b.Helper()
	if got := ids(ds); fmt.Sprint(got) != fmt.Sprint(want) {
		b.Fatalf("received %v; expected %v", got, want)
	}
}

func sequence(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("id-%04d", i)
	}
	return out
}

func testPublishReceiveAck(t *testing.T, b *bench) {
	c := b.consume("q")
	b.publish("q", "one")
	ds := b.receive(c, 1)
	b.wantIDs(ds, "one")
	if ds[0].Redelivered || ds[0].Queue != "q" || ds[0].Tag == "" {
		t.Errorf("delivery is %+v; expected a fresh one from q with a tag", ds[0])
	}
	b.settle(c, transport.Ack, "", ds...)
	b.empty()
}

func testConcurrent(t *testing.T, b *bench) {
	const publishers, each = 4, 50
	c := b.consume("q")
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				m := transport.Publication{Message: message(fmt.Sprintf("%d-%d", p, i)), RoutingKey: "q"}
				if err := b.transport.Publish(b.context(), []transport.Publication{m}); err != nil {
					t.Errorf("publish: %v", err)
				}
			}
		})
	}
	seen := map[string]bool{}
	for len(seen) < publishers*each {
		batch, err := c.Receive(b.context(), 7)
		if err != nil {
			t.Fatalf("receive after %d: %v", len(seen), err)
		}
		for _, d := range batch {
			if seen[d.Message.Headers.ID] {
				t.Errorf("%s came twice", d.Message.Headers.ID)
			}
			seen[d.Message.Headers.ID] = true
			wg.Go(func() {
				if lost, err := c.Settle(b.context(), []transport.Settlement{{Delivery: &d}}); err != nil || lost != 0 {
					t.Errorf("settle: lost %d, error %v", lost, err)
				}
			})
		}
	}
	wg.Wait()
	b.empty()
}
