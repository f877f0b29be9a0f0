package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// patient has no sweep, so that nothing but a timekeeper moves what is due.
func patient() map[string]any { return map[string]any{"gelery_sweep_interval": 600.0} }

// withETA is a publication as delayed ones are: with an eta.
func withETA(queue, id string, priority int) transport.Publication {
	p := publication(queue, id, priority)
	p.Message.Headers.ETA = "2030-01-01T00:00:00+00:00"
	return p
}

func delayAll(t testing.TB, c *consumer, after time.Duration, ds ...transport.Delivery) {
	t.Helper()
	var batch []transport.Delayed
	for i := range ds {
		batch = append(batch, transport.Delayed{Delivery: &ds[i], After: after})
	}
	if kept, err := c.Delay(deadline(t), batch); err != nil || len(kept) > 0 {
		t.Fatalf("delay kept %d, %v", len(kept), err)
	}
}

// makeDue lets everything delayed be due for so long, in its order, a millisecond apart.
func makeDue(t testing.TB, rdb *goredis.Client, since time.Duration, sets ...string) {
	t.Helper()
	first := float64(time.Now().Add(-since).UnixMilli()) / 1000
	for _, set := range sets {
		for i, tag := range rdb.ZRange(t.Context(), set, 0, -1).Val() {
			z := goredis.Z{Score: first + float64(i)/1000, Member: tag}
			rdb.ZAdd(t.Context(), set, z)
			rdb.ZAdd(t.Context(), "unacked_index", z)
		}
	}
}

func idsOf(ds []transport.Delivery) string {
	all := make([]string, len(ds))
	for i, d := range ds {
		all[i] = d.Message.Headers.ID
	}
	return strings.Join(all, " ")
}

// TestDueComeFirst: what is due stands before what waits, the oldest first, each in the list of its priority, as it was.
func TestDueComeFirst(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb := client(t, url)
		dead := consume(t, dial(t, url, patient()), "q")
		publish(t, dead.t, withETA("q", "later", 0), withETA("q", "soon", 0), withETA("q", "low", 9))
		ds := receive(t, dead, 3)
		raw := slices.Clone(ds[1].Raw)
		delayAll(t, dead, 3*time.Hour, ds[0])
		delayAll(t, dead, 2*time.Hour, ds[1:]...)
		dead.die() // at this moment
		publish(t, dead.t, publication("q", "waiting", 0), publication("q", "waiting low", 9))
		makeDue(t, rdb, time.Minute, "_gelery.delayed.q", "_gelery.delayed.q\x06\x169")
		c := consume(t, dial(t, url, patient()), "other")
		if err := c.Add(deadline(t), transport.Queue{Name: "q"}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.moveDue(&c.complaints); err != nil { // before the first claim
			t.Fatal(err)
		}
		ds = receive(t, c, 5)
		if got := idsOf(ds); got != "soon later waiting low waiting low" {
			t.Errorf("received %s", got)
		}
		if ds[0].Redelivered || string(ds[0].Raw) != string(raw) {
			t.Errorf("a delay has changed %s to %s", raw, ds[0].Raw)
		}
		if n := rdb.Exists(t.Context(), "_gelery.delayed.q", "_gelery.delayed.q\x06\x169").Val(); n != 0 {
			t.Errorf("%d sets are left", n)
		}
	})
}

// TestMoreDueThanAreMovedAtOnce: they come in the order of their etas; if they are very late, all come, the oldest first.
func TestMoreDueThanAreMovedAtOnce(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{time.Second, time.Minute} {
		forEachServer(t, func(t *testing.T, url string) {
			const n = 2*dueMost + 50
			rdb := client(t, url)
			c := consume(t, dial(t, url, patient()), "q")
			var want []string
			var batch []transport.Publication
			for i := range n {
				want = append(want, fmt.Sprintf("%04d", i))
				batch = append(batch, withETA("q", want[i], 0))
			}
			publish(t, c.t, batch...)
			delayAll(t, c, time.Hour, receive(t, c, n)...)
			makeDue(t, rdb, late, "_gelery.delayed.q")
			got := strings.Fields(idsOf(receive(t, c, n)))
			if late > duePatience {
				if !slices.Equal(got[:100], want[:100]) {
					t.Errorf("the first ones are %q", got[:100])
				}
				slices.Sort(got)
			}
			if !slices.Equal(got, want) {
				t.Errorf("late by %v: received %s", late, got)
			}
			if held := rdb.HLen(t.Context(), "unacked").Val(); held != n {
				t.Errorf("%d are held", held)
			}
		})
	}
}

// TestRenewalLeavesWhatIsDelayed: a renewal that had listed a message before it was delayed does not pull it back.
func TestRenewalLeavesWhatIsDelayed(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb := client(t, url)
		c := consume(t, dial(t, url, patient()), "q")
		publish(t, c.t, withETA("q", "a", 0))
		d := receive(t, c, 1)[0]
		delayAll(t, c, time.Hour, d)
		score := rdb.ZScore(t.Context(), "unacked_index", d.Tag).Val()
		c.mu.Lock()
		c.held[d.Tag] = &claimed{delivery: d}
		c.mu.Unlock()
		c.renew()
		if got := rdb.ZScore(t.Context(), "unacked_index", d.Tag).Val(); got != score || len(c.held) != 1 {
			t.Errorf("the score went from %f to %f, %d held", score, got, len(c.held))
		}
		if in := score - float64(time.Now().UnixMilli())/1000; in < 3590 || in > 3610 {
			t.Errorf("it is due in %f s", in)
		}
		if life := rdb.TTL(t.Context(), "_gelery.delayed.q").Val(); life < 24*time.Hour {
			t.Errorf("the set lives for %v", life)
		}
		c.mu.Lock()
		clear(c.held)
		c.mu.Unlock()
	})
}

// TestReplyOfDelayLost: it is delayed once and comes back once.
func TestReplyOfDelayLost(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	c := consume(t, dial(t, "redis://"+proxy.Addr+"/0", patient()), "q")
	pub := dial(t, server.URL, nil)
	t.Cleanup(func() { _ = pub.Close(context.Background()) })
	publish(t, pub, withETA("q", "w", 0), withETA("q", "a", 0))
	ds := receive(t, c, 2)
	delayAll(t, c, time.Hour, ds[0]) // loads the script
	proxy.DropReplies(1)
	delayAll(t, c, time.Hour, ds[1])
	rdb := client(t, server.URL)
	if n := rdb.ZCard(t.Context(), "_gelery.delayed.q").Val(); n != 2 || len(c.held) != 0 {
		t.Errorf("%d delayed, %d held", n, len(c.held))
	}
	makeDue(t, rdb, 0, "_gelery.delayed.q")
	if got := idsOf(receive(t, c, 2)); got != "w a" {
		t.Errorf("received %s", got)
	}
}

// TestSweepRestoresWhatIsDelayed: without a consumer of its queue it comes back by the sweep of another, a lease after
// its time and not before.
func TestSweepRestoresWhatIsDelayed(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	rdb := client(t, url)
	dead := consume(t, dial(t, url, quick(nil)), "q")
	publish(t, dead.t, withETA("q", "a", 3), withETA("q", "far", 3))
	ds := receive(t, dead, 2)
	delayAll(t, dead, 1500*time.Millisecond, ds[0])
	delayAll(t, dead, time.Hour, ds[1])
	due := time.Now().Add(1500 * time.Millisecond)
	dead.die()
	consume(t, dial(t, url, quick(nil)), "other")
	var back time.Time
	for ctx := deadline(t); ; {
		if rdb.LLen(ctx, "q\x06\x163").Val() == 1 {
			back = time.Now()
			break
		}
		if ctx.Err() != nil {
			t.Fatal("it does not come back")
		}
	}
	if late := back.Sub(due); late < 900*time.Millisecond {
		t.Errorf("it came back %v after its time; the lease is a second", late)
	}
	c := consume(t, dial(t, url, patient()), "q")
	d := receive(t, c, 1)[0]
	if d.Message.Headers.ID != "a" || !d.Redelivered {
		t.Errorf("received %+v", d)
	}
	if turn, err := c.moveDue(&c.complaints); turn.moved != 0 || err != nil {
		t.Errorf("moved %+v, %v", turn, err)
	}
	if n := rdb.ZCard(t.Context(), "_gelery.delayed.q\x06\x163").Val(); n != 1 {
		t.Errorf("the set holds %d; expected what is not due alone", n)
	}
}

// TestDelayDespiteWrongTypes: what cannot be delayed stays held; a list that is none holds up no other queue.
func TestDelayDespiteWrongTypes(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb := client(t, url)
		c := consume(t, dial(t, url, patient()), "bad", "good")
		publish(t, c.t, withETA("bad", "a", 0), withETA("bad", "b", 3), withETA("good", "c", 0))
		ds := receive(t, c, 3)
		rdb.Set(t.Context(), "_gelery.delayed.bad", "no set", 0)
		var batch []transport.Delayed
		for i := range ds {
			batch = append(batch, transport.Delayed{Delivery: &ds[i], After: time.Hour})
		}
		kept, err := c.Delay(deadline(t), batch)
		if len(kept) != 1 || kept[0].Delivery.Message.Headers.ID != "a" || err == nil || len(c.held) != 1 {
			t.Fatalf("kept %v, %v, %d held; expected a", kept, err, len(c.held))
		}
		rdb.Set(t.Context(), "bad\x06\x163", "no list", 0)
		makeDue(t, rdb, 0, "_gelery.delayed.bad\x06\x163", "_gelery.delayed.good")
		if got := idsOf(receive(t, c, 1)); got != "c" {
			t.Errorf("received %s", got)
		}
		if n := rdb.ZCard(t.Context(), "_gelery.delayed.bad\x06\x163").Val(); n != 1 {
			t.Errorf("%d are delayed; expected b to have stayed", n)
		}
		rdb.Del(t.Context(), "bad\x06\x163")
		if got := idsOf(receive(t, c, 1)); got != "b" {
			t.Errorf("after the key was mended received %s", got)
		}
		if lost, err := settleAll(t, c, transport.Ack, ds[slices.IndexFunc(ds, func(d transport.Delivery) bool { return d.Message.Headers.ID == "a" })]); lost != 0 || err != nil {
			t.Errorf("settle what was kept: lost %d, %v", lost, err)
		}
	})
}

// TestDelayAtMaxmemory: delaying, moving and beginning go on when Redis refuses what needs memory.
func TestDelayAtMaxmemory(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	rdb := client(t, server.URL)
	c := consume(t, dial(t, server.URL, patient()), "q")
	publish(t, c.t, withETA("q", "a", 0), withETA("q", "b", 0))
	ds := receive(t, c, 2)
	delayAll(t, c, 2*time.Hour, ds[0])
	makeDue(t, rdb, -time.Hour, "_gelery.delayed.q")
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Begin(deadline(t), &ds[1]); err != nil || ds[1].Message.Headers.Attempts() != 1 {
		t.Errorf("begin at maxmemory: %v", err)
	}
	delayAll(t, c, 1200*time.Millisecond, ds[1])
	if got := receive(t, c, 1); idsOf(got) != "b" || got[0].Message.Headers.Attempts() != 1 {
		t.Errorf("received %s", idsOf(got))
	}
}

func TestDeleteQueueWithDelayed(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb := client(t, url)
		c := consume(t, dial(t, url, patient()), "q")
		publish(t, c.t, withETA("q", "a", 0), withETA("q", "b", 6), withETA("q", "held", 0))
		ds := receive(t, c, 3)
		held := slices.IndexFunc(ds, func(d transport.Delivery) bool { return d.Message.Headers.ID == "held" })
		delayAll(t, c, time.Hour, slices.Delete(slices.Clone(ds), held, held+1)...)
		if n, err := c.t.DeleteQueue(deadline(t), "q", false, true); err == nil || !strings.Contains(err.Error(), "2 messages wait") {
			t.Errorf("deleted if empty: %d, %v", n, err)
		}
		if n, err := c.t.DeleteQueue(deadline(t), "q", false, false); n != 2 || err != nil {
			t.Errorf("deleted: %d, %v; expected 2", n, err)
		}
		if n := rdb.HLen(t.Context(), "unacked").Val() + rdb.ZCard(t.Context(), "unacked_index").Val(); n != 2 {
			t.Errorf("unacked and its index hold %d together; expected what is held alone", n)
		}
	})
}

// TestBeginKeepsToTheClaim: what stands in unacked is what Python reads, with the count; a lost reply counts once; a claim
// that is gone does not come back to life.
func TestBeginKeepsToTheClaim(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	rdb := client(t, server.URL)
	c := consume(t, dial(t, "redis://"+proxy.Addr+"/0", patient()), `q"uote`)
	pub := dial(t, server.URL, nil)
	t.Cleanup(func() { _ = pub.Close(context.Background()) })
	publish(t, pub, publication(`q"uote`, "a", 0))
	d := receive(t, c, 1)[0]
	for n := 1; n <= 2; n++ {
		if n == 2 { // the first loads the script
			proxy.DropReplies(1)
		}
		want, err := protocol.MarkAttempts(d.Raw, n)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Begin(deadline(t), &d); err != nil {
			t.Fatal(err)
		}
		if got := rdb.HGet(t.Context(), "unacked", d.Tag).Val(); got != "["+string(want)+`,"","q\"uote"]` {
			t.Errorf("begin %d left %s", n, got)
		}
		if d.Message.Headers.Attempts() != n || string(d.Raw) != string(want) || string(c.held[d.Tag].delivery.Raw) != string(want) {
			t.Errorf("begin %d left the delivery at %d attempts: %s", n, d.Message.Headers.Attempts(), d.Raw)
		}
	}
	rdb.HDel(t.Context(), "unacked", d.Tag)
	rdb.ZRem(t.Context(), "unacked_index", d.Tag)
	if err := c.Begin(deadline(t), &d); !errors.Is(err, transport.ErrTakenBack) || rdb.HLen(t.Context(), "unacked").Val() != 0 {
		t.Errorf("begin of what is gone: %v", err)
	}
	if err := c.Begin(deadline(t), &transport.Delivery{Tag: "x", Err: errors.New("bad")}); err == nil {
		t.Error("begin of what cannot be read is no error")
	}
}

// TestQueueOrderStrategies: within a step the queues share, or are served by their order or their names.
func TestQueueOrderStrategies(t *testing.T) {
	t.Parallel()
	for strategy, want := range map[string]string{
		"priority":    "b b b b a a a a c c c c",
		"sorted":      "a a a a b b b b c c c c",
		"round_robin": "",
	} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			forEachServer(t, func(t *testing.T, url string) {
				c := consume(t, dial(t, url, map[string]any{"queue_order_strategy": strategy}), "b", "a")
				if err := c.Add(deadline(t), transport.Queue{Name: "c"}); err != nil {
					t.Fatal(err)
				}
				for _, q := range []string{"c", "a", "b"} {
					for range 4 {
						publish(t, c.t, publication(q, q, 0))
					}
				}
				publish(t, c.t, publication("c", "low", 3)) // steps come before strategies
				var got []string
				for range 6 {
					got = append(got, idsOf(receive(t, c, 2)))
				}
				text := strings.Join(got, " ")
				if want == "" { // who has been served goes to the end
					for _, q := range []string{"a", "b", "c"} {
						if strings.Count(strings.Join(got[:3], " "), q) != 2 {
							t.Errorf("the first six are %q", got[:3])
						}
					}
				} else if text != want {
					t.Errorf("served in the order %s", text)
				}
				if last := idsOf(receive(t, c, 1)); last != "low" {
					t.Errorf("the last one is %s", last)
				}
			})
		})
	}
}
