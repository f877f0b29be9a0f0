package faults

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
)

var (
	kills    = flag.Int("kills", 200, "how many workers TestKilledUnderLoad kills; a tenth with -short")
	idle     = flag.Int("idle-kills", 50, "how many workers TestKilledWhileWaiting kills; a tenth with -short")
	seedFlag = flag.Uint64("seed", 0, "seed of the random instants; 0: a new one")
)

func count(n int) int {
	if testing.Short() {
		return max(1, n/10)
	}
	return n
}

// recovery is within what a dead Go worker's tasks must be running again.
const recovery = 30 * time.Second

// scene is a broker, a client, a ledger and the record of what was accepted.
type scene struct {
	testing.TB
	url    string
	client *task.Client
	rdb    *goredis.Client
	ledger Ledger

	mu       sync.Mutex
	accepted map[string]bool
}

func newScene(t *testing.T) *scene {
	url := testservice.Redis(t)
	client, err := task.Dial(t.Context(), task.Config{Broker: url, Backend: url})
	if err != nil {
		t.Fatal(err)
	}
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := goredis.NewClient(o)
	t.Cleanup(func() { _ = client.Close(context.Background()); _ = rdb.Close() })
	return &scene{TB: t, url: url, client: client, rdb: rdb, accepted: map[string]bool{},
		ledger: Ledger{filepath.Join(t.TempDir(), "ledger")}}
}

// send publishes a batch and records it as accepted when the call returned.
func (s *scene) send(ctx context.Context, n, ms int) {
	batch := make([]noteArgs, n)
	for i := range batch {
		batch[i].Milliseconds = ms
	}
	results, err := note.SendBatch(ctx, s.client, batch)
	if err != nil {
		s.Errorf("send: %v", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		s.accepted[r.ID()] = true
	}
}

// drained waits until nothing waits and nothing is held, and returns how long that took.
func (s *scene) drained(limit time.Duration) time.Duration {
	s.Helper()
	start := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range ticker.C {
		waiting, held := s.rdb.LLen(s.Context(), "celery").Val(), s.rdb.HLen(s.Context(), "unacked").Val()
		if waiting == 0 && held == 0 {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			s.Fatalf("after %v %d wait and %d are unacked", limit, waiting, held)
		}
	}
	return 0
}

// balance checks the account: nothing lost, no ghosts, extra runs within the bound.
func (s *scene) balance(what string, kills, extra int) {
	s.Helper()
	a := Balance(s.accepted, s.ledger.Counts(s))
	fmt.Fprintf(os.Stderr, "%s: %v, kills %d, bound on extra runs %d\n", what, a, kills, extra)
	if a.Lost != 0 || a.Ghosts != 0 || a.Extra > extra {
		s.Errorf("%s: %v; missing %v", what, a, a.Missing)
	}
	if n := s.rdb.ZCard(s.Context(), "unacked_index").Val(); n != 0 {
		s.Errorf("%d tags are left in unacked_index", n)
	}
}

// TestKilledUnderLoad kills workers at random instants while tasks stream in. Two run at any time; each kill is
// followed by a new worker.
func TestKilledUnderLoad(t *testing.T) {
	s := newScene(t)
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	workers := []*process{startWorker(t, s.url, s.ledger), startWorker(t, s.url, s.ledger)}
	ctx, stop := context.WithCancel(t.Context())
	var producer sync.WaitGroup
	producer.Go(func() {
		for ctx.Err() == nil {
			// Keep a few hundred waiting: under load, but not without bound.
			if s.rdb.LLen(t.Context(), "celery").Val() < 200 {
				s.send(t.Context(), 20, 1)
			}
		}
	})
	n := count(*kills)
	for range n {
		<-time.After(time.Duration(random.IntN(100_000)) * time.Microsecond) // the random instant
		i := random.IntN(2)
		workers[i].kill()
		workers[i] = startWorker(t, s.url, s.ledger)
	}
	stop()
	producer.Wait()
	last := s.drained(recovery)
	s.balance("killed under load", n, n*prefetch)
	t.Logf("everything done %v after the last kill", last)
	for _, w := range workers {
		if err := w.stop(); err != nil {
			t.Errorf("warm stop: %v: %s", err, w.log)
		}
	}
}

// TestKilledWhileWaiting freezes a worker that waits on the empty queue, sends a task, which kombu's BRPOP would put
// into the frozen process, and kills. Kombu loses it every time; here it never leaves its list, so it does not even
// run twice.
func TestKilledWhileWaiting(t *testing.T) {
	s := newScene(t)
	n := count(*idle)
	for range n {
		last := s.newestConnection()
		w := startWorker(t, s.url, s.ledger)
		s.waiting(last)
		w.freeze()
		s.send(t.Context(), 1, 0)
		// The round trip of a command after it: Redis has served whoever was blocked on the list by then.
		if err := s.rdb.Ping(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		w.kill()
	}
	heir := startWorker(t, s.url, s.ledger)
	last := s.drained(recovery)
	s.balance("killed while waiting", n, 0)
	t.Logf("everything done %v after the last kill", last)
	if err := heir.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, heir.log)
	}
}

// connections lists the clients of the broker: their ids, which only grow, and whether they wait for an empty list.
func (s *scene) connections() map[int64]bool {
	s.Helper()
	list, err := s.rdb.ClientList(s.Context()).Result()
	if err != nil {
		s.Fatal(err)
	}
	all := map[int64]bool{}
	for line := range strings.Lines(list) {
		client := map[string]string{}
		for _, field := range strings.Fields(line) {
			name, value, _ := strings.Cut(field, "=")
			client[name] = value
		}
		id, err := strconv.ParseInt(client["id"], 10, 64)
		if err != nil {
			s.Fatalf("no id in %s", line)
		}
		all[id] = client["cmd"] == "blmove" && strings.Contains(client["flags"], "b")
	}
	return all
}

func (s *scene) newestConnection() int64 {
	return slices.Max(slices.Collect(maps.Keys(s.connections())))
}

// waiting returns when the worker that connected after a connection is blocked on every list of its empty queue, with
// nothing in hand.
func (s *scene) waiting(after int64) {
	s.Helper()
	ctx := deadlineOf(s.TB, recovery)
	for ctx.Err() == nil {
		blocked := 0
		for id, waits := range s.connections() {
			if waits && id > after {
				blocked++
			}
		}
		if blocked == priorityLists && s.rdb.HLen(ctx, "unacked").Val() == 0 {
			return
		}
	}
	s.Fatalf("the worker did not wait on its empty queue within %v", recovery)
}

// TestStoppedUnderLoad stops workers warm, which is no fault: nothing runs twice.
func TestStoppedUnderLoad(t *testing.T) {
	s := newScene(t)
	s.send(t.Context(), 500, 2)
	for range 10 {
		w := startWorker(t, s.url, s.ledger)
		if err := w.stop(); err != nil {
			t.Errorf("warm stop: %v: %s", err, w.log)
		}
	}
	w := startWorker(t, s.url, s.ledger)
	s.drained(recovery)
	if err := w.stop(); err != nil {
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	s.balance("stopped under load", 0, 0)
}

func deadlineOf(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
