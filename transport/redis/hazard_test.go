package redis

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// Each test here is an interleaving or a key of the wrong type that once lost a message, or would have.

func settleAll(t testing.TB, c transport.Consumer, v transport.Verdict, ds ...transport.Delivery) (int, error) {
	t.Helper()
	batch := make([]transport.Settlement, len(ds))
	for i := range ds {
		batch[i] = transport.Settlement{Delivery: &ds[i], Verdict: v, Reason: "test"}
	}
	return c.Settle(deadline(t), batch)
}

func TestPartialRefusalIsToldAgain(t *testing.T) {
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	tr := dial(t, "redis://"+proxy.Addr+"/0", nil)
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	rdb := client(t, server.URL)
	publish(t, tr, publication("good", "w", 0))
	rdb.Set(t.Context(), "bad", "no list", 0)
	proxy.DropReplies(1)
	err := tr.Publish(deadline(t), []transport.Publication{publication("good", "a", 0), publication("bad", "b", 0)})
	if err == nil || !strings.Contains(err.Error(), `"bad"`) {
		t.Errorf("publish to a list that is none, reply lost: %v", err)
	}
	if n := rdb.LLen(t.Context(), "good").Val(); n != 2 {
		t.Errorf("the good list holds %d; expected 2", n)
	}
}

func TestAckWithLostReplyIsNoLoss(t *testing.T) {
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	pub := dial(t, server.URL, nil)
	t.Cleanup(func() { _ = pub.Close(context.Background()) })
	c := consume(t, dial(t, "redis://"+proxy.Addr+"/0", nil), "q")
	publish(t, pub, publication("q", "w", 0), publication("q", "a", 0), publication("q", "b", 0))
	ds := receive(t, c, 3)
	for i, v := range []transport.Verdict{transport.Ack, transport.Ack, transport.Return} {
		if i > 0 { // the first loads the script
			proxy.DropReplies(1)
		}
		if lost, err := settleAll(t, c, v, ds[i]); lost != 0 || err != nil {
			t.Errorf("settle %d: lost %d, %v", i, lost, err)
		}
	}
	if n := client(t, server.URL).HLen(t.Context(), "unacked").Val(); n != 0 {
		t.Errorf("%d unacked", n)
	}
}

func TestReturnToNoList(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, nil), "q")
	publish(t, c.t, publication("q", "a", 0), publication("q", "b", 0))
	ds := receive(t, c, 2)
	rdb.Set(t.Context(), "q", "no list", 0)
	if lost, err := settleAll(t, c, transport.Return, ds...); lost != 0 || err != nil {
		t.Errorf("lost %d, %v", lost, err)
	}
	qs, err := c.t.Quarantined(deadline(t), "q", 10)
	if err != nil || len(qs) != 2 || rdb.HLen(t.Context(), "unacked").Val() != 0 {
		t.Errorf("quarantine holds %d, %v; expected both", len(qs), err)
	}
}

func TestRestoreToNoList(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, map[string]any{"gelery_sweep_interval": 600.0}), "q")
	publish(t, c.t, publication("q", "a", 0), publication("q", "b", 0))
	receive(t, c, 2)
	c.die()
	age(t, rdb)
	rdb.Set(t.Context(), "q", "no list", 0)
	for range 2 {
		if err := c.t.sweepOnce(deadline(t)); err != nil {
			t.Error(err)
		}
	}
	if n := rdb.HLen(t.Context(), "unacked").Val(); n != 2 {
		t.Errorf("%d are unacked; expected both to have stayed", n)
	}
	rdb.Del(t.Context(), "q")
	if err := c.t.sweepOnce(deadline(t)); err != nil || rdb.LLen(t.Context(), "q").Val() != 2 {
		t.Errorf("after the key was mended: %v, %d came back", err, rdb.LLen(t.Context(), "q").Val())
	}
}

// age makes all claims older than any lease or visibility timeout.
func age(t testing.TB, rdb *goredis.Client) {
	t.Helper()
	for i, tag := range rdb.ZRange(t.Context(), "unacked_index", 0, -1).Val() {
		rdb.ZAdd(t.Context(), "unacked_index", goredis.Z{Score: float64(i + 1), Member: tag})
	}
}

func TestQuarantineIsNoList(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, nil), "q")
	rdb.Set(t.Context(), "_gelery.quarantine.q", "no list", 0)
	rdb.LPush(t.Context(), "q", "garbage")
	publish(t, c.t, publication("q", "a", 0), publication("q", "b", 0))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if ds, err := c.Receive(ctx, 10); err == nil {
		t.Errorf("received %v", ds)
	}
	if n := rdb.LLen(t.Context(), "q").Val(); n != 3 {
		t.Errorf("%d wait; expected all three to have stayed", n)
	}
	rdb.Del(t.Context(), "_gelery.quarantine.q")
	receive(t, c, 2)
}

func TestSettleWaitsForDisk(t *testing.T) {
	fake := miniredis.RunT(t)
	c := consume(t, dial(t, "redis://"+fake.Addr()+"/0", nil), "q")
	publish(t, c.t, publication("q", "a", 0))
	ds := receive(t, c, 1)
	fake.SetError("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.")
	time.AfterFunc(200*time.Millisecond, func() { fake.SetError("") })
	if lost, err := settleAll(t, c, transport.Ack, ds...); lost != 0 || err != nil || len(c.held) != 0 {
		t.Errorf("lost %d, %v, %d held", lost, err, len(c.held))
	}
}

func TestOneBadBindingHoldsUpNobody(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, map[string]any{"gelery_sweep_interval": 600.0}), "q")
	publish(t, c.t, publication("q", "a", 0))
	raw := rdb.LIndex(t.Context(), "q", 0).Val()
	receive(t, c, 1)
	c.die()
	rdb.Set(t.Context(), "_kombu.binding.evil", "no set", 0)
	rdb.HSet(t.Context(), "unacked", "py-tag", "["+raw+`,"evil","rk"]`)
	rdb.ZAdd(t.Context(), "unacked_index", goredis.Z{Score: 1, Member: "py-tag"})
	age(t, rdb)
	if err := c.t.sweepOnce(deadline(t)); err != nil || rdb.LLen(t.Context(), "q").Val() != 1 || rdb.HLen(t.Context(), "unacked").Val() != 1 {
		t.Errorf("sweep: %v; %d back, %d unacked", err, rdb.LLen(t.Context(), "q").Val(), rdb.HLen(t.Context(), "unacked").Val())
	}
}

// TestDoubtfulClaimsKeepToMax asks for what two claims took whose replies were lost, one message at a time.
func TestDoubtfulClaimsKeepToMax(t *testing.T) {
	url := testservice.Redis(t)
	c := consume(t, dial(t, url, nil), "q")
	for i := range 7 {
		publish(t, c.t, publication("q", fmt.Sprint(i), 0))
	}
	receive(t, c, 3)
	first := c.claims
	receive(t, c, 3)
	c.doubtful = []doubt{{fmt.Sprintf("%s:%d", c.id, first), 1}, {fmt.Sprintf("%s:%d", c.id, c.claims), 1}}
	c.mu.Lock()
	clear(c.held)
	c.mu.Unlock()
	for i := range 7 {
		ds, err := c.Receive(deadline(t), 1)
		if err != nil || len(ds) != 1 || ds[0].Message.Headers.ID != fmt.Sprint(i) || ds[0].Queue != "q" {
			t.Fatalf("received %d, %v; expected %d alone", len(ds), err, i)
		}
	}
	if len(c.doubtful) != 0 || len(c.held) != 7 {
		t.Errorf("%v is still in doubt, %d held", c.doubtful, len(c.held))
	}
}

// TestBigMessagesComeOneByOne bounds what one claim carries.
func TestBigMessagesComeOneByOne(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, nil), "q")
	big := `{"body":"` + strings.Repeat("A", 3<<20) + `","properties":{"delivery_tag":"t","delivery_info":{"exchange":"","routing_key":"q"}}}`
	for range 8 {
		rdb.LPush(t.Context(), "q", big)
	}
	for total := 0; total < 8; {
		ds, err := c.Receive(deadline(t), 40)
		if err != nil || len(ds) > 2 {
			t.Fatalf("one claim brought %d messages of 3 MiB, %v", len(ds), err)
		}
		total += len(ds)
	}
}

// lockedBuffer is a log that two goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestSettlingIsNotLosing renews without pause while deliveries are settled.
func TestSettlingIsNotLosing(t *testing.T) {
	url := testservice.Redis(t)
	c := consume(t, dial(t, url, nil), "q")
	log := &lockedBuffer{}
	c.log = slog.New(slog.NewTextHandler(log, nil))
	const n = 1000
	batch := make([]transport.Publication, n)
	for i := range batch {
		batch[i] = publication("q", fmt.Sprint(i), 0)
	}
	publish(t, c.t, batch...)
	stop := make(chan struct{})
	var renewing sync.WaitGroup
	renewing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				c.renew()
			}
		}
	})
	for done := 0; done < n; {
		ds := receive(t, c, 40)
		if lost, err := settleAll(t, c, transport.Ack, ds...); lost != 0 || err != nil {
			t.Errorf("lost %d, %v", lost, err)
		}
		done += len(ds)
	}
	close(stop)
	renewing.Wait()
	if said := log.b.String(); said != "" {
		t.Errorf("the log says %.200s", said)
	}
}

// TestBrokenInsideKombusShape claims what looks like kombu's own envelope and is none: it is not parsed by the script, so
// Receive must find it, and a sweep must if the worker dies in between.
func TestBrokenInsideKombusShape(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, map[string]any{"gelery_sweep_interval": 600.0}), "q")
	broken := `{"body": "W10=", "content-type": "x", "headers": {"task": nonsense}, "properties": {"delivery_info": {}, "x": }}`
	for range 2 {
		rdb.LPush(t.Context(), "q", broken)
	}
	ds := receive(t, c, 2)
	if ds[0].Err == nil || string(ds[0].Raw) != broken {
		t.Fatalf("received %+v", ds[0])
	}
	if lost, err := settleAll(t, c, transport.Quarantine, ds[0]); lost != 0 || err != nil {
		t.Errorf("lost %d, %v", lost, err)
	}
	c.die()
	age(t, rdb)
	if err := c.t.sweepOnce(deadline(t)); err != nil {
		t.Error(err)
	}
	qs, err := c.t.Quarantined(deadline(t), "q", 10)
	if err != nil || len(qs) != 2 || string(qs[0].Raw) != broken || rdb.HLen(t.Context(), "unacked").Val() != 0 {
		t.Errorf("quarantine holds %d, %v; expected both", len(qs), err)
	}
}
