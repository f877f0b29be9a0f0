package rabbitmq

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// TestSettleInAnyOrder settles deliveries of three queues in random batches, orders and ways. Most are
// acknowledged together; none may be that was not settled. What is left at the end comes again, once, and nothing else.
func TestSettleInAnyOrder(t *testing.T) {
	t.Parallel()
	server := testservice.RabbitMQ(t)
	const n = 600
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			tr := connect(t, server.URL)
			defer func() { _ = tr.Close(ctx) }()
			o := transport.ConsumeOptions{Prefetch: n}
			for i := range 3 {
				o.Queues = append(o.Queues, transport.Queue{Name: fmt.Sprint(kind, i), Arguments: map[string]any{"x-queue-type": kind}})
			}
			c, err := tr.Consume(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			var batch []transport.Publication
			for i := range n {
				m := &protocol.Message{Headers: protocol.Headers{Task: "t", ID: fmt.Sprint(i)}, Body: []byte(`[[],{},null]`)}
				batch = append(batch, transport.Publication{Message: m, RoutingKey: o.Queues[i%3].Name})
			}
			if err := tr.Publish(ctx, batch); err != nil {
				t.Fatal(err)
			}
			left := map[string]bool{} // ids that are not acknowledged
			var held []transport.Delivery
			for came := 0; came < n; {
				ds, err := c.Receive(ctx, 1+rand.IntN(50))
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range ds {
					if !d.Redelivered {
						came++
					}
					left[d.Message.Headers.ID] = true
				}
				held = append(held, ds...)
				held = settleSome(ctx, t, c, held, left)
			}
			if err := c.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if c, err = tr.Consume(ctx, o); err != nil {
				t.Fatal(err)
			}
			for want := len(left); want > 0; want-- {
				ds, err := c.Receive(ctx, 1)
				if err != nil {
					t.Fatalf("%d do not come again: %v", want, err)
				}
				if id := ds[0].Message.Headers.ID; !left[id] {
					t.Errorf("%s came again, though it was acknowledged", id)
				} else {
					delete(left, id)
				}
			}
			if err := c.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}

// settleSome settles a random part of what is held, some of it by giving it back, and returns the rest.
func settleSome(ctx context.Context, t *testing.T, c transport.Consumer, held []transport.Delivery, left map[string]bool) []transport.Delivery {
	t.Helper()
	rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
	n := rand.IntN(len(held) + 1)
	var batch []transport.Settlement
	for i := range held[:n] {
		s := transport.Settlement{Delivery: &held[i]}
		if rand.IntN(10) == 0 {
			s.Verdict = transport.Requeue
		} else {
			delete(left, held[i].Message.Headers.ID)
		}
		batch = append(batch, s)
	}
	if lost, err := c.Settle(ctx, batch); lost != 0 || err != nil {
		t.Fatalf("settle: lost %d, %v", lost, err)
	}
	return held[n:]
}

// TestOldest: one acknowledgement includes all below it, so nothing that is held or waits may be below.
func TestOldest(t *testing.T) {
	t.Parallel()
	e, in := &epoch{}, &intake{}
	one, two, three, gone := &held{epoch: e}, &held{epoch: e}, &held{epoch: e}, &held{intake: in}
	one.intake, two.intake, in.waiting = in, in, []*held{three}
	one.DeliveryTag, two.DeliveryTag, three.DeliveryTag = 3, 4, 6
	c := &consumer{held: map[string]*held{"3": one, "4": two}}
	for _, tt := range []struct {
		batch []settling
		want  uint64
	}{{[]settling{{held: gone}}, 3}, {[]settling{{held: one}}, 4}, {[]settling{{held: two}}, 6}} {
		if got := c.oldest(e, tt.batch); got != tt.want {
			t.Errorf("the oldest is %d; expected %d", got, tt.want)
		}
	}
}
