//go:build unix

package worker

import (
	"context"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// fleet is some workers on one broker.
type fleet struct {
	*site
	workers []*site
}

// newFleet prepares workers on a broker in memory; the limits are in a Redis.
func newFleet(t *testing.T, n int, opts ...func(s *site, worker int)) *fleet {
	f := &fleet{site: newSite(t)}
	quiet, err := task.NewClient(f.client.Transport(), f.client.Backend(), task.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), IgnoreResult: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		s := &site{T: t, client: quiet, mux: NewMux(), done: make(chan error, 1)}
		for _, o := range opts {
			o(s, i)
		}
		f.workers = append(f.workers, s)
	}
	return f
}

func (f *fleet) start(c Config) {
	f.Helper()
	c.Logger = slog.New(slog.NewTextHandler(f.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	for i, s := range f.workers {
		c.Queues = []string{"celery", ownQueue(i)}
		s.start(c)
	}
}

func ownQueue(worker int) string { return "of-" + strconv.Itoa(worker) }

func (f *fleet) end() {
	f.Helper()
	for _, s := range f.workers {
		s.stop()
	}
	for _, s := range f.workers {
		if err := s.end(); err != nil {
			f.Error(err)
		}
	}
}

// sendMany sends the same number to each worker's own queue, so that nobody gets all.
func (f *fleet) sendMany(name string, n int) {
	f.Helper()
	calls := make([]task.Call, n)
	for i := range calls {
		calls[i] = task.Call{Name: name, Args: []any{i}, Options: []task.SendOption{task.Queue(ownQueue(i % len(f.workers)))}}
	}
	ctx, cancel := context.WithTimeout(f.T.Context(), time.Minute)
	defer cancel()
	if _, err := f.workers[0].client.SendBatch(ctx, calls); err != nil {
		f.Fatal(err)
	}
}

// reaches waits until a task has run n times.
func (r *runs) reaches(t *testing.T, n int, within time.Duration) {
	t.Helper()
	limit, tick := time.After(within), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for r.count() < n {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%d of %d ran in %v", r.count(), n, within)
		}
	}
}

// within counts the runs that began in a time since the first, and the most in any second of it.
func (r *runs) within(d time.Duration) (n, peak int) {
	began := r.seen().began
	slices.Sort(began)
	first := 0
	for i, at := range began {
		if at >= d {
			break
		}
		n++
		for at-began[first] >= time.Second {
			first++
		}
		peak = max(peak, i-first+1)
	}
	return n, peak
}

// TestGlobalRate has four workers with one rate of 100 a second. GELERY_LIMITS_LONG=1 watches them for a minute.
func TestGlobalRate(t *testing.T) {
	t.Parallel()
	watch, off := 3*time.Second, 0.10 // on a machine that is busy with other tests
	if os.Getenv("GELERY_LIMITS_LONG") != "" {
		watch, off = time.Minute, 0.03
	}
	const rate = 100
	var r runs
	var by [4]atomic.Int64
	f := newFleet(t, 4, func(s *site, i int) {
		r.task(s, "t", 0)
		s.mux.Use(func(next task.Handler) task.Handler { return tally(&by[i], next) })
	})
	f.start(Config{Concurrency: 4, Limits: []Limit{{Task: "t", Rate: "100/s"}}, LimitsURL: testservice.Redis(t)})
	f.sendMany("t", rate*int(watch/time.Second)*5/4)
	<-time.After(watch + 200*time.Millisecond)
	f.end()
	n, peak := r.within(watch)
	want := rate * watch.Seconds()
	t.Logf("%d ran in %v, %.2f %% off; at most %d in a second; by worker %d %d %d %d", n, watch, 100*(float64(n)/want-1), peak,
		by[0].Load(), by[1].Load(), by[2].Load(), by[3].Load())
	if float64(n) < want*(1-off) || float64(n) > want*(1+off) {
		t.Errorf("%d ran in %v; expected %.0f", n, watch, want)
	}
	if peak > rate*3/2 { // runs begin late when the machine is busy, and then closer together
		t.Errorf("%d ran within a second", peak)
	}
	for i := range by {
		if by[i].Load() < int64(want/16) {
			t.Errorf("worker %d ran only %d", i, by[i].Load())
		}
	}
}

func tally(n *atomic.Int64, next task.Handler) task.Handler {
	return func(ctx context.Context, r *protocol.Request) (any, error) {
		n.Add(1)
		return next(ctx, r)
	}
}

// TestGlobalConcurrency has four workers that together run three at once, each of which gets some.
func TestGlobalConcurrency(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]int{"three": 3, "one": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var limited, free runs
			var by [4]atomic.Int64
			f := newFleet(t, 4, func(s *site, i int) {
				limited.task(s, "limited", 20*time.Millisecond)
				free.task(s, "free", 0)
				s.mux.Use(func(next task.Handler) task.Handler { return tally(&by[i], next) })
			})
			n := 100 * limit
			f.start(Config{Concurrency: 4, PrefetchMultiplier: 1, LimitsURL: testservice.Redis(t),
				Limits: []Limit{{Queue: "elsewhere", Concurrency: 1}, {Task: "limited", Concurrency: limit}}})
			f.sendMany("limited", n)
			limited.reaches(t, n, 20*time.Second)
			f.end()
			if limited.seen().top > limit {
				t.Errorf("%d ran at once", limited.seen().top)
			}
			t.Logf("by worker %d %d %d %d in %v", by[0].Load(), by[1].Load(), by[2].Load(), by[3].Load(), limited.seen().began[n-1])
			for i := range by {
				if by[i].Load() == 0 {
					t.Errorf("worker %d ran none", i)
				}
			}
		})
	}
}

// TestGlobalQueueLimit: all tasks from a queue share it.
func TestGlobalQueueLimit(t *testing.T) {
	t.Parallel()
	var a, b runs
	f := newFleet(t, 2, func(s *site, _ int) {
		a.task(s, "a", 0)
		b.task(s, "b", 0, task.RateLimit("1/h"))
	})
	for range 10 {
		f.sendMany("a", 10)
		f.sendMany("b", 2)
	}
	begun := time.Now() // a first run that is late makes nothing of it
	f.start(Config{Concurrency: 2, Limits: []Limit{{Queue: ownQueue(0), Rate: "25/s", Concurrency: 3}, {Queue: ownQueue(1), Rate: "50/s"}}, LimitsURL: testservice.Redis(t)})
	a.reaches(t, 100, 20*time.Second)
	took := time.Since(begun)
	f.end()
	if took < 1900*time.Millisecond { // 50 of each queue, of one at 25 a second
		t.Errorf("100 ran in %v", took)
	}
	if n := b.count(); n == 0 || n > 2 {
		t.Errorf("%d ran of a task that has a limit of its own in each worker", n)
	}
}

// TestLimitsWithoutRedis: while the Redis of the limits is away, tasks under it wait and others do not. One that comes back
// with nothing lets no more run than it should.
func TestLimitsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t)
	var rate, count, free runs
	f := newFleet(t, 2, func(s *site, _ int) {
		rate.task(s, "rate", 0)
		count.task(s, "count", 50*time.Millisecond)
		free.task(s, "free", 0)
	})
	f.sendMany("rate", 400)
	f.sendMany("count", 400)
	f.start(Config{Concurrency: 4, Limits: []Limit{{Task: "rate", Rate: "50/s"}, {Task: "count", Concurrency: 2}}, LimitsURL: server.URL})
	rate.reaches(t, 20, 10*time.Second)
	server.Kill()
	<-time.After(1500 * time.Millisecond)
	before := rate.count()
	f.sendMany("free", 10)
	free.reaches(t, 10, 10*time.Second)
	<-time.After(500 * time.Millisecond)
	if n := rate.count(); n != before {
		t.Errorf("%d ran without Redis", n-before)
	}
	server.Restart()
	rate.reaches(t, before+50, 20*time.Second)
	f.end()
	if _, peak := rate.within(time.Hour); peak > 110 {
		t.Errorf("%d ran within a second", peak)
	}
	if count.seen().top < 2 || count.seen().top > 4 { // those of a second, at most
		t.Errorf("%d ran at once", count.seen().top)
	}
}

func TestBadLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	redis := "redis://127.0.0.1:1/0"
	for want, c := range map[string]Config{
		"Limits[0]: Task \"\", Queue \"\"":      {Limits: []Limit{{Rate: "1/s"}}},
		"one of them":                           {Limits: []Limit{{Task: "t", Queue: "q", Rate: "1/s"}}},
		"Limits[1]: neither Rate nor":           {Limits: []Limit{{Task: "t", Rate: "1/s"}, {Task: "u", Rate: "0"}}},
		`Limits[0]: Rate: "1/d" is not a rate`:  {Limits: []Limit{{Task: "t", Rate: "1/d"}}},
		"Concurrency: -1 is negative":           {Limits: []Limit{{Task: "t", Concurrency: -1}}},
		"Limits[1]: task t.u has a limit":       {Limits: []Limit{{Task: "t.u", Rate: "1"}, {Task: "t.u", Concurrency: 1}}},
		"LimitsURL: Limits are kept in Redis":   {Limits: []Limit{{Task: "t", Rate: "1"}}, LimitsURL: "none"},
		"LimitsURL: http://h: scheme":           {Limits: []Limit{{Task: "t", Rate: "1"}}, LimitsURL: "http://h"},
		`transport option "master" is unknown`:  {Limits: []Limit{{Task: "t", Rate: "1"}}, LimitsURL: redis, LimitsOptions: map[string]any{"master": "m"}},
		"DefaultRateLimit: \"x\" is not a rate": {DefaultRateLimit: "x"},
	} {
		if c.LimitsURL == "none" {
			c.LimitsURL = ""
		} else if c.LimitsURL == "" {
			c.LimitsURL = redis
		}
		if _, err := New(s.client, s.mux, c); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "worker config: ") {
			t.Errorf("%v; expected %s", err, want)
		}
	}
}
