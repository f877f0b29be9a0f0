//go:build unix

package faults

import (
	"fmt"
	"maps"
	"net"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
)

// failover is a Redis with a replica and a Sentinel, which takes the master for dead after half a second.
type failover struct {
	*scene
	master, replica, sentinel *testservice.RedisServer
	link                      *testservice.Proxy // between replica and master

}

// underSentinel is a scene whose client and workers know the Sentinel only. It has no results.
func underSentinel(t *testing.T) *failover {
	t.Helper()
	f := &failover{master: testservice.StartRedis(t)}
	f.link = testservice.NewProxy(t, f.master.Addr)
	host, port, err := net.SplitHostPort(f.link.Addr)
	if err != nil {
		t.Fatal(err)
	}
	f.replica = testservice.StartRedis(t, "--replicaof", host+" "+port)
	f.sentinel = testservice.StartSentinel(t, "mymaster", f.master)
	options := map[string]any{"master_name": "mymaster"}
	f.scene = newScene(t, setup{Broker: f.sentinel.URL, Queue: "celery", Options: options}, f.sentinel.URL, options)
	f.watch(goredis.NewFailoverClient(&goredis.FailoverOptions{MasterName: "mymaster", SentinelAddrs: []string{f.sentinel.Addr}}))
	replica := goredis.NewClient(&goredis.Options{Addr: f.replica.Addr})
	t.Cleanup(func() { _ = replica.Close() })
	sentinel := goredis.NewSentinelClient(&goredis.Options{Addr: f.sentinel.Addr})
	t.Cleanup(func() { _ = sentinel.Close() })
	f.await(recovery, "the Sentinel knows the replica, which is in step", func() bool {
		known, err := sentinel.Replicas(t.Context(), "mymaster").Result()
		if err != nil || len(known) != 1 || known[0]["master-link-status"] != "ok" {
			return false
		}
		return true
	})
	f.replicated()
	return f
}

// load lets tasks stream for a time and returns what ends it.
func (f *failover) load() (stop func()) {
	stop = f.stream(4, 50, milliseconds(5))
	f.resumed(f.grown(), time.Now(), comeback)
	<-time.After(form(500*time.Millisecond, 3*time.Second)) // of load
	return stop
}

// forgotten takes out of the account what Redis itself has lost: tasks that the old master accepted after the safe ones,
// which a replica had. What the new master accepted, and what was safe, must have run.
func (f *failover) forgotten(safe, old map[string]bool) int {
	f.Helper()
	maps.DeleteFunc(old, func(id string, _ bool) bool { return safe[id] })
	return Forgive(f.accepted, f.ledger.Counts(f), old)
}

// promoted waits until the replica is the master, and returns what was accepted before: by the old one.
func (f *failover) promoted(limit time.Duration) (old map[string]bool) {
	f.Helper()
	replica := goredis.NewClient(&goredis.Options{Addr: f.replica.Addr})
	defer func() { _ = replica.Close() }()
	f.await(slack*limit, "the replica is the master", func() bool {
		accepted := f.sent() // first: what comes after a look may be the new master's
		role, err := replica.Do(f.Context(), "ROLE").Slice()
		if err == nil && role[0] == "slave" {
			old = accepted
		}
		return err == nil && role[0] == "master"
	})
	return old
}

// replicated is what has been accepted, when a replica has all of it.
func (f *failover) replicated() map[string]bool {
	f.Helper()
	safe := f.sent()
	f.await(comeback, "the replica is in step", func() bool {
		// WAIT counts what this connection has written: a write of its own comes after all others.
		pipe := f.rdb.Pipeline()
		pipe.Set(f.Context(), "step", "2", 0)
		wait := pipe.Do(f.Context(), "WAIT", 1, 1000)
		_, err := pipe.Exec(f.Context())
		return err == nil && wait.Val() == int64(1)
	})
	return safe
}

// over waits until nothing waits and nothing is held: what Redis has lost does not come.
func (f *failover) over() {
	f.Helper()
	f.await(2*recovery, "the queue is empty", func() bool { waiting, held := f.depth(); return waiting == 0 && held == 0 })
}

// TestF31MasterKilled kills the master under load.
func TestF31MasterKilled(t *testing.T) {
	t.Parallel()
	f := underSentinel(t)
	workers := []*process{f.worker(), f.worker()}
	stop := f.load()
	safe := f.replicated()
	f.master.Kill()
	end, grown := time.Now(), f.grown()
	old := f.promoted(comeback)
	back := f.resumed(grown, end, comeback)
	<-time.After(time.Second) // of load
	stop()
	f.over()
	stopped(t, workers...)
	lost := f.forgotten(safe, old)
	f.account(outcome{what: fmt.Sprintf("Sentinel, master killed; %d that no replica had are not counted", lost), faults: 1, extra: 2 * prefetch,
		recovery: back, limit: comeback})
}

// TestF32MasterFrozen freezes the master until another one is chosen; it wakes up as a replica.
func TestF32MasterFrozen(t *testing.T) {
	t.Parallel()
	f := underSentinel(t)
	workers := []*process{f.worker(), f.worker()}
	stop := f.load()
	safe := f.replicated()
	f.master.Freeze()
	start, grown := time.Now(), f.grown()
	old := f.promoted(2 * comeback)
	back := f.resumed(grown, start, 2*comeback)
	<-time.After(time.Until(start.Add(6 * time.Second)))
	f.master.Thaw()
	former := goredis.NewClient(&goredis.Options{Addr: f.master.Addr})
	t.Cleanup(func() { _ = former.Close() })
	f.await(recovery, "the old master is a replica", func() bool {
		role, err := former.Do(t.Context(), "ROLE").Slice()
		return err == nil && role[0] == "slave"
	})
	<-time.After(time.Second) // of load
	stop()
	f.over()
	stopped(t, workers...)
	lost := f.forgotten(safe, old)
	f.account(outcome{what: fmt.Sprintf("Sentinel, master frozen, wakes as a replica; %d that no replica had are not counted", lost), faults: 1,
		extra: 2 * prefetch, recovery: back, limit: 2 * comeback})
}

// TestF33ReplicaCut cuts the replica off and kills the master a moment later: what was accepted in between is lost, and
// nothing else. What waited or was held at the cut may run once more, as the replica does not know that it has run.
func TestF33ReplicaCut(t *testing.T) {
	t.Parallel()
	f := underSentinel(t)
	workers := []*process{f.worker(), f.worker()}
	stop := f.load()
	safe := f.replicated()
	f.link.Pause()
	waiting, _ := f.depth()
	<-time.After(time.Second) // of load
	f.link.Down()
	f.master.Kill()
	end, grown := time.Now(), f.grown()
	old := f.promoted(comeback)
	back := f.resumed(grown, end, comeback)
	<-time.After(time.Second) // of load
	stop()
	f.over()
	stopped(t, workers...)
	lost := f.forgotten(safe, old)
	f.account(outcome{what: fmt.Sprintf("Sentinel, replica cut off for 1 s, then the master killed; %d that no replica had are not counted", lost),
		faults: 1, extra: waiting + 2*2*prefetch, recovery: back, limit: comeback})
}

// TestF34SentinelFrozen has no Sentinel answer: connections that are there work, new ones wait for it.
func TestF34SentinelFrozen(t *testing.T) {
	t.Parallel()
	f := underSentinel(t)
	workers := []*process{f.worker(), f.worker()}
	stop := f.load()
	f.sentinel.Freeze()
	f.resumed(f.grown(), time.Now(), comeback)
	<-time.After(form(time.Second, 10*time.Second))
	f.resumed(f.grown(), time.Now(), comeback)
	// Now they need it, and it is not there.
	direct := goredis.NewClient(&goredis.Options{Addr: f.master.Addr})
	t.Cleanup(func() { _ = direct.Close() })
	direct.ClientKillByFilter(t.Context(), "TYPE", "normal", "SKIPME", "yes")
	<-time.After(form(2*time.Second, 10*time.Second))
	for _, w := range workers {
		if !w.alive() {
			t.Fatalf("a worker has ended: %s", w.log)
		}
	}
	grown := f.grown()
	f.sentinel.Thaw()
	back := f.resumed(grown, time.Now(), comeback)
	stop()
	f.over()
	stopped(t, workers...)
	f.account(outcome{what: "all Sentinels frozen, then all connections closed", faults: 1, extra: 2 * prefetch, recovery: back, limit: comeback})
}
