package redis

import (
	"context"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

func TestExamine(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	rdb, tr := client(t, url), dial(t, url, nil)
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	ctx := deadline(t)
	findings := func(queues ...string) map[string]transport.Finding {
		t.Helper()
		found, err := tr.Examine(ctx, queues)
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]transport.Finding{}
		for _, f := range found {
			m[f.Subject] = f
		}
		return m
	}
	want := func(found map[string]transport.Finding, subject string, health transport.Health, detail string) {
		t.Helper()
		if f := found[subject]; f.Health != health || !strings.Contains(f.Detail, detail) {
			t.Errorf("%+v\nwant %s, %s, %q", f, subject, health, detail)
		}
	}
	publish(t, tr, publication("good", "a", 0))
	if err := tr.Declare(ctx, transport.Queue{Name: "good"}); err != nil {
		t.Fatal(err)
	}
	rdb.Set(ctx, "bad", "text", 0)
	rdb.LPush(ctx, "_gelery.quarantine.good", "{}\nx", "{}\ny")

	found := findings("good", "bad", "empty")
	want(found, "connection", transport.Healthy, "answers in")
	want(found, "persistence", transport.Broken, "messages are lost")
	want(found, "permissions", transport.Healthy, "may do all that is needed")
	want(found, "unacked", transport.Healthy, "0 messages held by workers")
	want(found, "queue good", transport.Healthy, "1 waiting; 0 unacked")
	want(found, "queue empty", transport.Healthy, "0 waiting; 0 unacked")
	want(found, "queue bad", transport.Broken, `key "bad": WRONGTYPE`)
	want(found, "quarantine of good", transport.Doubtful, "2 messages that no worker could handle")

	rdb.HSet(ctx, "unacked", "old", `[{}, "", "good"]`, "new", `[{}, "", "good"]`)
	rdb.ZAdd(ctx, "unacked_index", goredis.Z{Score: 1, Member: "old"}, goredis.Z{Score: float64(time.Now().Unix()), Member: "new"})
	found = findings()
	want(found, "unacked", transport.Doubtful, "2 messages held by workers, 1 of them for longer than the visibility timeout of 1h0m0s")
	want(found, "queue good", transport.Healthy, "1 waiting; 2 unacked")
	rdb.HSet(ctx, "unacked", "later", `[{}, "", "good"]`)
	rdb.ZAdd(ctx, "unacked_index", goredis.Z{Score: 1e12, Member: "later"})
	want(findings(), "unacked", transport.Doubtful, "2 messages held by workers, 1 delayed, 1 of them for longer than")
	if _, has := found["queue bad"]; has {
		t.Error("a queue that nobody declared is listed")
	}
	rdb.Set(ctx, "unacked_index", "text", 0)
	want(findings("good"), "unacked", transport.Broken, `key "unacked_index": WRONGTYPE`)
}

// TestNeededCommands: a user who may run these and nothing else can publish, receive and settle.
func TestNeededCommands(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	rdb, all := client(t, url), dial(t, url, nil)
	t.Cleanup(func() { _ = all.Close(context.Background()) })
	ctx := deadline(t)
	rules := []any{"ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+select", "+acl|whoami"}
	for _, c := range all.neededCommands() {
		rules = append(rules, "+"+strings.ToLower(c[0].(string)))
	}
	if err := rdb.Do(ctx, rules...).Err(); err != nil {
		t.Fatal(err)
	}
	tr := dial(t, strings.Replace(url, "redis://", "redis://worker:secret@", 1), nil)
	t.Cleanup(func() { _ = tr.Close(context.Background()) })
	c, err := tr.Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: "celery"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, verdict := range []transport.Verdict{transport.Requeue, transport.Return, transport.Quarantine, transport.Ack} {
		publish(t, tr, publication("celery", "m", 0))
		ds, err := c.Receive(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Settle(ctx, []transport.Settlement{{Delivery: &ds[0], Verdict: verdict}}); err != nil {
			t.Error(err)
		}
	}
	if err := c.Close(ctx); err != nil {
		t.Error(err)
	}
	if denied, err := rdb.Do(ctx, "ACL", "LOG").Slice(); err != nil || len(denied) > 0 {
		t.Errorf("denied: %v, %v", denied, err)
	}
}
