package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// quick makes dead workers' messages come back within a second or two.
func quick(more map[string]any) map[string]any {
	o := map[string]any{"gelery_lease": 1.0, "gelery_sweep_interval": 0.2}
	for k, v := range more {
		o[k] = v
	}
	return o
}

func publication(queue, id string, priority int) transport.Publication {
	return transport.Publication{RoutingKey: queue, Message: &protocol.Message{
		Headers:     protocol.Headers{Lang: "go", Task: "tasks.add", ID: id},
		Properties:  protocol.Properties{Priority: priority},
		ContentType: "application/json", ContentEncoding: "utf-8", Body: []byte(`[[1,2],{},null]`),
	}}
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func publish(t testing.TB, tr transport.Transport, ps ...transport.Publication) {
	t.Helper()
	if err := tr.Publish(deadline(t), ps); err != nil {
		t.Fatal(err)
	}
}

func consume(t testing.TB, tr *redisTransport, queues ...string) *consumer {
	t.Helper()
	var o transport.ConsumeOptions
	for _, q := range queues {
		o.Queues = append(o.Queues, transport.Queue{Name: q})
	}
	c, err := tr.Consume(deadline(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()); _ = tr.Close(context.Background()) })
	return c.(*consumer)
}

func receive(t testing.TB, c transport.Consumer, n int) []transport.Delivery {
	t.Helper()
	var all []transport.Delivery
	for len(all) < n {
		ds, err := c.Receive(deadline(t), n-len(all))
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(all), n, err)
		}
		all = append(all, ds...)
	}
	return all
}

// die ends a consumer as SIGKILL would: nothing is given back, nothing is renewed any more.
func (c *consumer) die() {
	c.cancel()
	c.source().waker.close()
	c.actors.Wait()
	c.mu.Lock()
	clear(c.held)
	c.mu.Unlock()
}

func TestDeadWorkersMessagesComeBack(t *testing.T) {
	url := testservice.Redis(t)
	dead := consume(t, dial(t, url, quick(nil)), "q")
	publish(t, dead.t, publication("q", "low", 9), publication("q", "one", 0), publication("q", "two", 0))
	receive(t, dead, 3)
	dead.die()
	heir := consume(t, dial(t, url, quick(nil)), "q")
	ds := receive(t, heir, 3)
	got := make([]string, 3)
	for i, d := range ds {
		got[i] = d.Message.Headers.ID
		if !d.Redelivered || !d.Message.Properties.DeliveryInfo.Redelivered {
			t.Errorf("%s is not marked redelivered", got[i])
		}
	}
	if strings.Join(got, " ") != "one two low" {
		t.Errorf("came back as %v; expected their order and priorities kept", got)
	}
}

func TestHeldMessagesAreNotRestored(t *testing.T) {
	url := testservice.Redis(t)
	o := quick(map[string]any{"visibility_timeout": 1.0})
	holder := consume(t, dial(t, url, o), "q")
	other := consume(t, dial(t, url, o), "q")
	publish(t, holder.t, publication("q", "long", 0))
	ds := receive(t, holder, 1)
	// Three leases and visibility timeouts long, the other worker must not get it.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if got, err := other.Receive(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the other worker received %v, %v", got, err)
	}
	if lost, err := holder.Settle(deadline(t), []transport.Settlement{{Delivery: &ds[0]}}); lost != 0 || err != nil {
		t.Errorf("settle after a long hold: lost %d, %v", lost, err)
	}
}

// TestPythonsClaimIsRestored plays a Python worker that died: its entry is in unacked under the message's own tag.
func TestPythonsClaimIsRestored(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, quick(map[string]any{"visibility_timeout": 1.0})), "q")
	envelope := func(id string) string {
		m := publication("q", id, 3).Message
		m.Properties.DeliveryInfo.RoutingKey = "q"
		return string(protocol.AppendEnvelope(nil, m))
	}
	old := float64(time.Now().Unix() - 10)
	put := func(tag, value string, score float64) {
		rdb.HSet(t.Context(), "unacked", tag, value)
		rdb.Do(t.Context(), "ZADD", "unacked_index", score, tag)
	}
	put("tag-default", "["+envelope("default")+`, "", "q"]`, old)
	put("tag-direct", "["+envelope("direct")+`, "q", "q"]`, old+1)
	put("tag-nowhere", "["+envelope("nowhere")+`, "gone", "k"]`, old)
	put("tag-garbage", "not json", old)
	put("tag-fresh", "["+envelope("fresh")+`, "", "q"]`, float64(time.Now().Unix()+100))
	rdb.Do(t.Context(), "ZADD", "unacked_index", old, "tag-without-value")
	ds := receive(t, c, 2)
	if ds[0].Message.Headers.ID != "default" || ds[1].Message.Headers.ID != "direct" {
		t.Errorf("restored %s and %s", ds[0].Message.Headers.ID, ds[1].Message.Headers.ID)
	}
	if err := c.t.sweepOnce(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for tag, want := range map[string]bool{"tag-nowhere": true, "tag-fresh": true, "tag-garbage": false, "tag-without-value": false, "tag-default": false} {
		err := rdb.ZScore(t.Context(), "unacked_index", tag).Err()
		if (err == nil) != want {
			t.Errorf("%s is in the index: %v; expected %v", tag, err == nil, want)
		}
	}
	qs, err := c.t.Quarantined(deadline(t), "unacked", 10)
	if err != nil || len(qs) != 1 || string(qs[0].Raw) != "not json" {
		t.Errorf("quarantine of unreadable entries holds %v, %v", qs, err)
	}
}

// TestReplyOfClaimLost drops the reply to the claim: the message is recorded as ours, and we find out.
func TestReplyOfClaimLost(t *testing.T) {
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	through := "redis://" + proxy.Addr + "/0"
	publisher := dial(t, server.URL, nil)
	t.Cleanup(func() { _ = publisher.Close(context.Background()) })
	c := consume(t, dial(t, through, nil), "q")
	publish(t, publisher, publication("q", "warm", 0)) // loads the script
	receive(t, c, 1)
	publish(t, publisher, publication("q", "a", 0), publication("q", "b", 0))
	proxy.DropReplies(1)
	start := time.Now()
	ds := receive(t, c, 2)
	if ds[0].Message.Headers.ID != "a" || ds[1].Message.Headers.ID != "b" || ds[0].Queue != "q" || ds[0].Redelivered {
		t.Errorf("received %+v", ds)
	}
	t.Logf("recovered after %v", time.Since(start))
}

// TestReplyOfPublishLost drops replies to publishes: each message arrives once.
func TestReplyOfPublishLost(t *testing.T) {
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	p := dial(t, "redis://"+proxy.Addr+"/0", nil)
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	publish(t, p, publication("q", "warm", 0))
	const n = 20
	for i := range n {
		proxy.DropReplies(1)
		publish(t, p, publication("q", fmt.Sprint(i), 0))
	}
	if got := client(t, server.URL).LLen(t.Context(), "q").Val(); got != n+1 {
		t.Errorf("the queue holds %d messages; expected %d", got, n+1)
	}
}

func TestConnectionsCutUnderLoad(t *testing.T) {
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	through := "redis://" + proxy.Addr + "/0"
	p := dial(t, through, nil)
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	c := consume(t, dial(t, through, quick(nil)), "q")
	const n = 2000
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			if err := p.Publish(deadline(t), []transport.Publication{publication("q", fmt.Sprint(i), 0)}); err != nil {
				sent <- err
				return
			}
			if i%100 == 50 {
				proxy.Cut()
			}
		}
		sent <- nil
	}()
	seen := map[string]int{}
	for len(seen) < n {
		ds, err := c.Receive(deadline(t), 50)
		if err != nil {
			t.Fatalf("after %d: %v", len(seen), err)
		}
		batch := make([]transport.Settlement, len(ds))
		for i := range ds {
			seen[ds[i].Message.Headers.ID]++
			batch[i].Delivery = &ds[i]
		}
		if _, err := c.Settle(deadline(t), batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for id, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times; the lease was never lost", id, times)
		}
	}
	rdb := client(t, server.URL)
	if h, z := rdb.HLen(t.Context(), "unacked").Val(), rdb.ZCard(t.Context(), "unacked_index").Val(); h != 0 || z != 0 {
		t.Errorf("%d unacked and %d indexed are left", h, z)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	server := testservice.StartRedis(t, "--appendonly", "yes", "--appendfsync", "always")
	c := consume(t, dial(t, server.URL, nil), "q")
	publish(t, c.t, publication("q", "held", 0), publication("q", "waiting", 0))
	held := receive(t, c, 1)
	server.Kill()
	server.Restart()
	ds := receive(t, c, 1)
	if ds[0].Message.Headers.ID != "waiting" {
		t.Errorf("received %s", ds[0].Message.Headers.ID)
	}
	lost, err := c.Settle(deadline(t), []transport.Settlement{{Delivery: &held[0]}, {Delivery: &ds[0]}})
	if lost != 0 || err != nil {
		t.Errorf("settle after the restart: lost %d, %v", lost, err)
	}
}

func TestMaxmemory(t *testing.T) {
	server := testservice.StartRedis(t)
	rdb := client(t, server.URL)
	c := consume(t, dial(t, server.URL, quick(nil)), "q")
	publish(t, c.t, publication("q", "a", 0), publication("q", "b", 0), publication("q", "c", 0))
	held := receive(t, c, 1)
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	err := c.t.Publish(deadline(t), []transport.Publication{publication("q", "d", 0)})
	var pe *transport.PublishError
	if !errors.Is(err, transport.ErrBrokerFull) || !errors.As(err, &pe) || pe.InDoubt {
		t.Errorf("publish on a full broker: %v; expected ErrBrokerFull, not in doubt", err)
	}
	// Draining goes on: receive, renew, acknowledge, return.
	ds := receive(t, c, 1)
	c.renew()
	if len(c.held) != 2 {
		t.Errorf("%d held after a renewal at maxmemory; expected 2", len(c.held))
	}
	lost, err := c.Settle(deadline(t), []transport.Settlement{{Delivery: &held[0]}, {Delivery: &ds[0], Verdict: transport.Return}})
	if lost != 0 || err != nil {
		t.Errorf("settle at maxmemory: lost %d, %v", lost, err)
	}
	if got := receive(t, c, 2); got[0].Message.Headers.ID != "b" {
		t.Errorf("first is %s; expected the returned b", got[0].Message.Headers.ID)
	}
}

// TestUnackedIsWhatPythonReads pins what Python's sweep needs: [envelope, "", queue], the envelope byte for byte.
func TestUnackedIsWhatPythonReads(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, nil), `q"uote`)
	publish(t, c.t, publication(`q"uote`, "a", 0))
	raw := rdb.LIndex(t.Context(), `q"uote`, 0).Val()
	d := receive(t, c, 1)[0]
	value := rdb.HGet(t.Context(), "unacked", d.Tag).Val()
	var parts []json.RawMessage
	if err := json.Unmarshal([]byte(value), &parts); err != nil || len(parts) != 3 {
		t.Fatalf("unacked value %s: %v", value, err)
	}
	if string(parts[0]) != raw || string(parts[1]) != `""` || string(parts[2]) != `"q\"uote"` {
		t.Errorf("unacked value is %s", value)
	}
	score := rdb.ZScore(t.Context(), "unacked_index", d.Tag).Val()
	if now := float64(time.Now().UnixMilli()) / 1000; score < now-5 || score > now+5 {
		t.Errorf("score is %f, now is %f", score, now)
	}
}

func TestWrongTypesLoseNothing(t *testing.T) {
	url := testservice.Redis(t)
	rdb := client(t, url)
	c := consume(t, dial(t, url, nil), "bad", "good")
	rdb.Set(t.Context(), "bad", "I am no list", 0)
	publish(t, c.t, publication("good", "a", 0))
	if d := receive(t, c, 1)[0]; d.Queue != "good" {
		t.Errorf("received from %s", d.Queue)
	}
	rdb.Del(t.Context(), "unacked")
	rdb.Set(t.Context(), "unacked", "I am no hash", 0)
	publish(t, c.t, publication("good", "b", 0))
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if ds, err := c.Receive(ctx, 1); err == nil {
		t.Fatalf("received %v with unacked of the wrong type", ds)
	}
	if n := rdb.LLen(t.Context(), "good").Val(); n != 1 {
		t.Errorf("the queue holds %d; expected the message to have stayed", n)
	}
	rdb.Del(t.Context(), "unacked")
	if d := receive(t, c, 1)[0]; d.Message.Headers.ID != "b" {
		t.Errorf("received %s", d.Message.Headers.ID)
	}
}

func TestWrongPassword(t *testing.T) {
	server := testservice.StartRedis(t)
	if err := client(t, server.URL).ConfigSet(t.Context(), "requirepass", "right").Err(); err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"wrong", ""} {
		start := time.Now()
		_, err := transport.Open(deadline(t), "redis://:"+password+"@"+server.Addr+"/0", transport.Options{})
		if err == nil || strings.Contains(err.Error(), "wrong@") || time.Since(start) > 5*time.Second {
			t.Errorf("open with password %q: %v after %v", password, err, time.Since(start))
		}
	}
}

func TestBadOptions(t *testing.T) {
	url := testservice.Miniredis(t)
	for name, v := range map[string]any{
		"visibility_timeout": "soon", "gelery_lease": 0, "global_keyprefix": 5, "sep": "", "priority_steps": []any{3, 1},
		"fanout_prefix": "no", "fanout_patterns": "yes", "no_such_option": 1, "queue_order_strategy": "fair",
	} {
		_, err := transport.Open(deadline(t), url, transport.Options{TransportOptions: map[string]any{name: v}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("option %s=%v: %v; expected an error that names it", name, v, err)
		}
	}
}
