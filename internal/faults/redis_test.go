//go:build unix

package faults

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// TestF21RedisRestarted kills Redis under load and starts it again on its append-only file.
func TestF21RedisRestarted(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t, "--appendonly", "yes", "--appendfsync", "everysec")
	s := onRedis(t, server.URL)
	workers := []*process{s.worker(), s.worker()}
	stop := s.stream(4, 50, milliseconds(5))
	<-s.grown()
	kills, longest := form(3, 10), time.Duration(0)
	for range kills {
		<-time.After(form(300*time.Millisecond, 3*time.Second)) // of load
		server.SyncAppendOnly()
		server.Kill()
		grown := s.grown()
		server.Restart()
		longest = max(longest, s.resumed(grown, time.Now(), 3*time.Second))
	}
	stop()
	s.settled(recovery)
	stopped(t, workers...)
	s.account(outcome{what: "broker killed and restarted, AOF everysec", faults: kills, extra: kills * 2 * prefetch, recovery: longest, limit: 3 * time.Second})
	if len(s.refused)+len(s.doubtful) > 0 {
		t.Errorf("%d calls were refused and %d are in doubt; expected all to be answered by the restarted broker", len(s.refused), len(s.doubtful))
	}
}

// TestF22RedisEmptied shuts Redis down without persistence: what it had is lost, and the worker goes on.
func TestF22RedisEmptied(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	s := onRedis(t, server.URL)
	if health, said := s.examined("persistence"); health != transport.Broken {
		t.Errorf("persistence is %s: %s; expected the doctor to tell that there is none", health, said)
	}
	w := s.worker()
	s.sendMany(100, 50)
	s.ran(slots)
	before := s.sent()
	_ = s.rdb.ShutdownNoSave(t.Context()) // has no answer
	server.Restart()
	end := time.Now()
	grown := s.grown()
	stop := s.stream(4, 50, milliseconds(5))
	back := s.resumed(grown, end, 3*time.Second)
	<-time.After(300 * time.Millisecond) // of load
	stop()
	s.await(recovery, "the queue is empty", func() bool { waiting, held := s.depth(); return waiting == 0 && held == 0 })
	stopped(t, w)
	// What Redis has lost is not to be found again; what was sent to it afterwards is not among that.
	forgotten := Forgive(s.accepted, s.ledger.Counts(t), before)
	if forgotten == 0 || forgotten > 100 {
		t.Errorf("Redis has lost %d tasks; expected what had not begun of a hundred", forgotten)
	}
	s.account(outcome{what: "broker emptied (SHUTDOWN NOSAVE, no persistence, which `gelery doctor` tells); what it forgot is not counted", faults: 1, recovery: back, limit: 3 * time.Second})
}

// TestF24ConnectionsKilled has Redis close all connections again and again.
func TestF24ConnectionsKilled(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	workers := []*process{s.worker(), s.worker()}
	stop := s.stream(4, 50, milliseconds(5))
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	kills := form(15, 150)
	for i := range kills {
		<-ticker.C
		kind := []string{"normal", "pubsub"}[i%2]
		_ = s.rdb.ClientKillByFilter(t.Context(), "TYPE", kind, "SKIPME", "yes") // the producers' connections come and go
	}
	end, grown := time.Now(), s.grown()
	back := s.resumed(grown, end, 2*time.Second)
	stop()
	s.settled(recovery)
	stopped(t, workers...)
	s.account(outcome{what: "CLIENT KILL every 200 ms", faults: kills, recovery: back, limit: 2 * time.Second})
}

// TestF25RedisSilent has Redis answer nobody for a while, shorter than a lease: nobody loses one, and calls end at their
// deadline.
func TestF25RedisSilent(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t, "--enable-debug-command", "yes")
	s := onRedis(t, server.URL)
	workers := []*process{s.worker(), s.worker()}
	stop := s.stream(4, 50, milliseconds(5))
	<-s.grown()
	silence := form(2*time.Second, 10*time.Second)
	operator := goredis.NewClient(&goredis.Options{Addr: server.Addr, MaxRetries: -1, ReadTimeout: 2 * silence, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = operator.Close() })
	var longest time.Duration
	for _, command := range [][]any{{"CLIENT", "PAUSE", silence.Milliseconds(), "ALL"}, {"DEBUG", "SLEEP", silence.Seconds()}} {
		<-time.After(500 * time.Millisecond) // of load
		over := time.After(silence)
		go operator.Do(t.Context(), command...) // DEBUG SLEEP is answered after its time
		s.await(silence, "Redis is silent", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			return operator.Ping(ctx).Err() != nil
		})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		_, err := s.send(ctx, 0)
		cancel()
		var publish *transport.PublishError
		if !errors.As(err, &publish) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v: send: %v; expected a PublishError for the deadline", command, err)
		}
		if took := time.Since(start); took > slack*time.Second {
			t.Errorf("%v: a call with a deadline of 500 ms took %v", command, took)
		}
		<-over
		end, grown := time.Now(), s.grown()
		longest = max(longest, s.resumed(grown, end, 2*time.Second))
	}
	stop()
	s.settled(recovery)
	stopped(t, workers...)
	s.account(outcome{what: "broker answers nobody (CLIENT PAUSE, DEBUG SLEEP)", faults: 2, recovery: longest, limit: 2 * time.Second})
}

// TestF26HalfOpen lets nothing through between a worker and Redis, without a word to either, for longer than a lease:
// another worker takes over what it held.
func TestF26HalfOpen(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	s := onRedis(t, server.URL)
	cut := s.worker(func(told *setup) {
		told.Broker = strings.Replace(server.URL, server.Addr, proxy.Addr, 1)
	})
	s.sendMany(200, 5)
	s.ran(slots)
	proxy.Pause()
	over := time.After(form(20*time.Second, 60*time.Second))
	other := s.worker()
	s.sendMany(200, 5)
	start := time.Now()
	took := s.settled(recovery)
	t.Logf("the other worker had done all %v after the cut", took)
	<-over
	proxy.Resume()
	end := time.Now()
	stopped(t, other)
	grown := s.grown()
	s.sendMany(50, 5)
	back := s.resumed(grown, end, 20*time.Second)
	s.settled(recovery)
	stopped(t, cut)
	s.account(outcome{what: "half-open network between a worker and the broker for " + time.Since(start).Round(10*time.Second).String(), faults: 1,
		extra: prefetch, recovery: back, limit: 20 * time.Second})
}

// TestF27PublishReplyLost loses the answers to publishes: nothing is lost, and nothing doubled.
func TestF27PublishReplyLost(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	s := onRedis(t, server.URL, strings.Replace(server.URL, server.Addr, proxy.Addr, 1))
	w := s.worker()
	drops := form(20, 200)
	for range drops {
		for range 9 {
			s.sendOne(1)
		}
		proxy.DropReplies(1)
		s.sendOne(1)
	}
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "reply of every tenth publish lost", faults: drops})
}

// sendOne sends one task, which must be accepted.
func (s *scene) sendOne(ms int) {
	s.Helper()
	if _, err := s.send(deadlineOf(s.TB, patient), ms); err != nil {
		s.Fatal(err)
	}
}

// TestF28ClaimReplyLost loses answers that a worker gets, claims among them: what it has claimed without knowing is
// recorded as its own, and it recovers that.
func TestF28ClaimReplyLost(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	proxy := testservice.NewProxy(t, server.Addr)
	s := onRedis(t, server.URL)
	w := s.worker(func(told *setup) { told.Broker = strings.Replace(server.URL, server.Addr, proxy.Addr, 1) })
	stop := s.stream(4, 50, milliseconds(5))
	drops := form(10, 100)
	for range drops {
		<-time.After(200 * time.Millisecond) // of load
		proxy.DropReplies(1)
	}
	stop()
	took := s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "replies to a worker lost, of claims and acknowledgements", faults: drops, recovery: took, limit: comeback})
}

// TestF30Chaos ends every connection of client and worker after half a second to one and a half.
func TestF30Chaos(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	ways := []*testservice.Proxy{testservice.NewProxy(t, server.Addr), testservice.NewProxy(t, server.Addr), testservice.NewProxy(t, server.Addr)}
	by := func(i int) string { return strings.Replace(server.URL, server.Addr, ways[i].Addr, 1) }
	s := onRedis(t, server.URL, by(0))
	workers := []*process{s.worker(func(told *setup) { told.Broker, told.Backend = by(1), by(1) }),
		s.worker(func(told *setup) { told.Broker, told.Backend = by(2), by(2) })}
	before, filesBefore := s.has()
	stop := s.stream(4, 50, milliseconds(5))
	cuts, end := 0, time.After(form(5*time.Second, 5*time.Minute))
	for running := true; running; {
		select {
		case <-time.After(time.Duration(500+rand.IntN(1000)) * time.Millisecond / time.Duration(len(ways))):
			ways[rand.IntN(len(ways))].Cut()
			cuts++
		case <-end:
			running = false
		}
	}
	grown := s.grown()
	back := s.resumed(grown, time.Now(), comeback)
	stop()
	s.settled(recovery)
	after, filesAfter := s.has()
	stopped(t, workers...)
	s.account(outcome{what: "every connection ends after 0.5 to 1.5 s", faults: cuts, recovery: back, limit: comeback})
	if after > before+10 || filesAfter > filesBefore+10 {
		t.Errorf("a worker has %d goroutines and %d files; before the fault one had %d and %d", after, filesAfter, before, filesBefore)
	}
}
