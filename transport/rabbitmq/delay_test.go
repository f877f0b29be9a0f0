//go:build unix

package rabbitmq

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

func TestAddressOf(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü", 127)
	tests := map[string]string{
		"celery":   "gelery-queue:celery",
		"mail.low": "gelery-queue:mail%2Elow",
		"a*#%2E.":  "gelery-queue:a%2A%23%252E%2E",
		long:       "gelery-queue:" + strings.Repeat("ü", 76) + "~",
	}
	for queue, want := range tests {
		got := addressOf(queue)
		if got != want && !(strings.HasSuffix(want, "~") && strings.HasPrefix(got, want)) {
			t.Errorf("%q: %q, want %q", queue, got, want)
		}
		if key := delayKey(time.Hour, got); checkShort("key", key) != nil || strings.Count(key, ".") != delayLevels {
			t.Errorf("%q: %q is no key of %d words", queue, key, delayLevels+1)
		}
	}
	if addressOf(long) == addressOf(long+"x") {
		t.Error("two long names have the same address")
	}
}

// TestDelayAfterQueueDeleted deletes a queue under its consumer, which declares it again: what is delayed reaches it, from
// who has sent by way of the delay before, and from the worker that delays what it was given.
func TestDelayAfterQueueDeleted(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind    string
		delayed bool
	}{{"classic", true}, {"quorum", true}, {"classic", false}} {
		t.Run(fmt.Sprintf("%s %v", tt.kind, tt.delayed), func(t *testing.T) {
			t.Parallel()
			s := testservice.RabbitMQ(t)
			options := map[string]any{"native_delayed_delivery_queue_type": tt.kind}
			worker, sender := newRig(t, s.URL, options), newRig(t, s.URL, options)
			c := worker.consume(10, transport.Queue{Name: "q", Delayed: tt.delayed})
			comesLater := func(id string) {
				t.Helper()
				p := transport.Publication{Message: taskMessage(id), RoutingKey: "q"}
				if tt.delayed {
					p.Delay = time.Second
				}
				if err := sender.tr.Publish(sender.within(patience), []transport.Publication{p}); err != nil {
					t.Fatal(err)
				}
				if !tt.delayed {
					worker.delay(c, worker.receive(c, 1)[0], time.Second)
				}
				if ids := worker.take(c, 1); ids[0] != id {
					t.Errorf("received %q, expected %q", ids, id)
				}
			}
			comesLater("before")
			deleteQueue(s, "q")
			eventually(t, func() string { return errorText(sender.publish(sender.within(patience), "q", "direct")) })
			worker.take(c, 1)
			comesLater("after")
		})
	}
}

// delay gives a delivery back for a while.
func (r *rig) delay(c *consumer, d transport.Delivery, after time.Duration) {
	r.Helper()
	if kept, err := c.Delay(r.within(patience), []transport.Delayed{{Delivery: &d, After: after}}); err != nil || len(kept) > 0 {
		r.Fatalf("kept %d: %v", len(kept), err)
	}
}

// TestDelayReachesItsQueueAlone: a task that a worker delays is not copied to queues whose patterns look like its own
// queue's name.
func TestDelayReachesItsQueueAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, testservice.RabbitMQ(t).URL, nil)
	others := []string{"low", "mail.low", "mail.*", "*.low", "mail.#", "#.mail.#", "gelery-queue.#", "#.gelery-queue.*.*"}
	for i, key := range others {
		r.declare(transport.Queue{Name: fmt.Sprint("other", i), Exchange: "events", ExchangeType: "topic", RoutingKey: key, Delayed: true})
	}
	names := []string{"mail.low", "#", "*.low", strings.Repeat("ü", 127)}
	consumers := make([]*consumer, len(names))
	for i, name := range names {
		consumers[i] = r.consume(10, transport.Queue{Name: name})
		r.send(name, name)
		r.delay(consumers[i], r.receive(consumers[i], 1)[0], time.Second)
	}
	for i, name := range names {
		if ids := r.take(consumers[i], 1); ids[0] != name {
			t.Errorf("queue %s got %q", name, ids)
		}
	}
	for i, key := range others {
		name := fmt.Sprint("other", i)
		c := r.consume(10, transport.Queue{Name: name, Unbound: true})
		r.send(name, "end")
		if ids := r.take(c, 1); ids[0] != "end" {
			t.Errorf("the queue bound with %s got the delayed task of %s", key, ids)
		}
	}
}

// TestDelayDenied: without the right to declare the delay queues all is kept, and one answer is enough for a batch.
func TestDelayDenied(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, withUser(s.URL, restricted(t, s, "^(q|amq.default)$", "")), nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "1", "2", "3")
	ds := r.receive(c, 3)
	batch := make([]transport.Delayed, len(ds))
	for i := range ds {
		batch[i] = transport.Delayed{Delivery: &ds[i], After: time.Hour}
	}
	kept, err := c.Delay(r.within(patience), batch)
	if d := cmp.Diff(batch, kept); d != "" || err == nil || strings.Count(err.Error(), "ACCESS_REFUSED") != 1 {
		t.Errorf("kept %d of 3, want one error: %v", len(kept), err)
	}
	if lost := r.settle(c, transport.Ack, ds...); lost > 0 {
		t.Errorf("%d of what was kept are not held any more", lost)
	}
}

// TestDelayOfALostDelivery: what is delayed after its channel was lost is new when it comes again, and not kept here.
func TestDelayOfALostDelivery(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	r := newRig(t, through(s, proxy.Addr), nil)
	c := r.consume(10, transport.Queue{Name: "q"})
	r.send("q", "1")
	d := r.receive(c, 1)[0]
	proxy.Down()
	r.log.await(t, patience, "consuming channel lost")
	r.delay(c, d, time.Hour)
	proxy.Up()
	if ids := r.take(c, 1); ids[0] != "1" {
		t.Errorf("received %q", ids)
	}
}

// TestLongNames: a name that AMQP has no room for is refused here. The broker would end the connection.
func TestLongNames(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	long := strings.Repeat("k", 300)
	none := func(_ any, err error) error { return err }
	for name, f := range map[string]func(ctx context.Context, r *rig) error{
		"queue": func(ctx context.Context, r *rig) error { return r.tr.Declare(ctx, transport.Queue{Name: long}) },
		"binding key": func(ctx context.Context, r *rig) error {
			return r.tr.Declare(ctx, transport.Queue{Name: "q", RoutingKey: long})
		},
		"its exchange": func(ctx context.Context, r *rig) error {
			return r.tr.Declare(ctx, transport.Queue{Name: "q", Exchange: long})
		},
		"argument": func(ctx context.Context, r *rig) error {
			return r.tr.Declare(ctx, transport.Queue{Name: "q", Arguments: map[string]any{long: 1}})
		},
		"delayed key": func(ctx context.Context, r *rig) error {
			return r.tr.Declare(ctx, transport.Queue{Name: "q", Exchange: "x", ExchangeType: "topic", RoutingKey: long[:254], Delayed: true})
		},
		"bind": func(ctx context.Context, r *rig) error {
			return r.tr.Bind(ctx, "q", transport.Binding{Exchange: "x", RoutingKey: long})
		},
		"unbind": func(ctx context.Context, r *rig) error {
			return r.tr.Unbind(ctx, long, transport.Binding{Exchange: "x"})
		},
		"exchange": func(ctx context.Context, r *rig) error {
			return r.tr.DeclareExchange(ctx, transport.Exchange{Name: long})
		},
		"removed":   func(ctx context.Context, r *rig) error { return r.tr.DeleteExchange(ctx, long, false) },
		"delete":    func(ctx context.Context, r *rig) error { return none(r.tr.DeleteQueue(ctx, long, false, false)) },
		"purge":     func(ctx context.Context, r *rig) error { return none(r.tr.Purge(ctx, long)) },
		"broadcast": func(ctx context.Context, r *rig) error { return r.tr.Broadcast(ctx, long, "", taskMessage("x")) },
		"subscribe": func(ctx context.Context, r *rig) error { return none(r.tr.Subscribe(ctx, long[:250], "#")) },
		"pattern":   func(ctx context.Context, r *rig) error { return none(r.tr.Subscribe(ctx, "x", long)) },
		"publish": func(ctx context.Context, r *rig) error {
			return r.tr.Publish(ctx, []transport.Publication{{Message: taskMessage("x"), Exchange: long}})
		},
		"depth": func(ctx context.Context, r *rig) error {
			d, err := r.tr.Depths(ctx, []string{long})
			if err != nil {
				t.Error(err)
				return nil
			}
			return fmt.Errorf("%+v", d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, s.URL, nil)
			if err := f(r.within(patience), r); err == nil || !strings.Contains(err.Error(), "AMQP carries 255") {
				t.Errorf("it says %.300v", err)
			}
			if strings.Contains(r.log.String(), "lost") {
				t.Error("a connection was lost")
			}
		})
	}
}

// TestLongQueue has a queue whose name is as long as they may be, and with the prefix of its quarantine too long.
func TestLongQueue(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	r := newRig(t, s.URL, map[string]any{"management_url": s.ManagementURL})
	name := strings.Repeat("k", 255)
	c := r.consume(10, transport.Queue{Name: name})
	r.send(name, "bad")
	r.settle(c, transport.Quarantine, r.receive(c, 1)...)
	ctx := r.within(patience)
	if m, err := r.tr.Quarantined(ctx, name, 10); err != nil || len(m) != 1 || m[0].Queue != name || m[0].Reason != "it is bad" {
		t.Errorf("in quarantine %+v, %v", m, err)
	}
	if d, err := r.tr.Depths(ctx, []string{name}); err != nil || d[0].Quarantined != 1 || d[0].Error != "" {
		t.Errorf("%+v, %v", d, err)
	}
	list := func(want string) {
		t.Helper()
		eventually(t, func() string {
			got, err := r.tr.Queues(ctx)
			return cmp.Diff([]string{want}, got) + errorText(err)
		})
	}
	list(name)
	deleteQueue(s, name)
	eventually(t, func() string { return errorText(r.publish(ctx, name, "x")) }) // it is there again
	r.take(c, 1)
	if err := c.Close(ctx); err != nil {
		t.Fatal(err)
	}
	deleteQueue(s, name)
	list(strings.TrimPrefix(quarantineName(name), quarantinePrefix)) // what is known of its name
	if n, err := r.tr.PurgeQuarantine(ctx, name); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
}
