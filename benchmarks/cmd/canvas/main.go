// Command canvas measures workflows on Redis: a chord against as many single tasks, in turn, from the worker's start until
// the last result is stored; a long chain; deep nesting; and what a large group costs in memory while it is sent.
//
//	go run ./cmd/canvas
//	go run ./cmd/canvas -parts 1000 -steps 100 -group 10000 -rounds 1
//
// It starts a redis-server of its own. Exit codes: 0 the bounds hold, 1 one does not or something is missing.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	_ "github.com/gelery/gelery/backends/redis"
	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/redisserver"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
	"github.com/gelery/gelery/worker"
)

// leastRatio is what a chord's throughput must be of that of single tasks.
const leastRatio = 0.5

// site is a queue with the client and the tasks of a worker.
type site struct {
	client *task.Client
	mux    *worker.Mux
	bodies atomic.Int64
	parts  atomic.Int64 // that the last body was given
}

func main() {
	parts := flag.Int("parts", 10_000, "parts of the chord, and single tasks")
	steps := flag.Int("steps", 1_000, "steps of the chain")
	depth := flag.Int("depth", 20, "chords in chords")
	group := flag.Int("group", 100_000, "members of the group")
	rounds := flag.Int("rounds", 5, "pairs; the median counts")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	server, err := redisserver.Start(ctx)
	if err == nil {
		err = measure(ctx, server.URL, *parts, *steps, *depth, *group, *rounds)
		if stopped := server.Stop(); err == nil {
			err = stopped
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "canvas:", err)
		os.Exit(1)
	}
}

func measure(ctx context.Context, url string, parts, steps, depth, group, rounds int) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := task.Dial(ctx, task.Config{Broker: url, Backend: url, Logger: log})
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(ctx) }()
	s := &site{client: client, mux: worker.NewMux()}
	s.mux.Func("bench.one", func() (int, error) { return 1, nil })
	s.mux.Func("bench.next", func(n int) (int, error) { return n + 1, nil })
	s.mux.Func("bench.count", func(all []any) (int, error) {
		s.bodies.Add(1)
		s.parts.Store(int64(len(all)))
		return len(all), nil
	})
	fmt.Println("load:", lab.Load())
	var ratios []float64
	for range rounds {
		single, err := s.singles(ctx, parts)
		if err != nil {
			return err
		}
		chord, err := s.chord(ctx, parts)
		if err != nil {
			return err
		}
		ratios = append(ratios, chord/single)
		fmt.Printf("%d single tasks %8.0f/s   chord of %d parts %8.0f/s   %.2fx\n", parts, single, parts, chord, chord/single)
	}
	if err := s.long(ctx, steps); err != nil {
		return err
	}
	if err := s.nested(ctx, depth); err != nil {
		return err
	}
	if err := s.large(ctx, group); err != nil {
		return err
	}
	if rounds == 0 {
		return nil
	}
	median := lab.Median(ratios)
	fmt.Printf("chord against single tasks, median of %d pairs: %.2fx; at least %.2fx is asked for\n", rounds, median, leastRatio)
	if median < leastRatio {
		return fmt.Errorf("%.2fx is less", median)
	}
	return nil
}

// while runs a worker as long as f runs.
func (s *site) while(ctx context.Context, f func() error) (took time.Duration, err error) {
	w, err := worker.New(s.client, s.mux, worker.Config{Concurrency: 10, Logger: s.client.Config().Logger})
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	begun := time.Now()
	go func() { ended <- w.Run(running) }()
	err = f()
	took = time.Since(begun)
	stop()
	if stopped := <-ended; err == nil {
		err = stopped
	}
	return took, err
}

func (s *site) singles(ctx context.Context, n int) (rate float64, err error) {
	ones := func(yield func(task.Signature) bool) {
		for range n {
			if !yield(task.S("bench.one")) {
				return
			}
		}
	}
	group, err := s.client.ApplyGroup(ctx, ones)
	if err != nil {
		return 0, err
	}
	took, err := s.while(ctx, func() error {
		_, err := group.Join(ctx)
		return err
	})
	return float64(n) / took.Seconds(), err
}

func (s *site) chord(ctx context.Context, n int) (rate float64, err error) {
	before := s.bodies.Load()
	members := make([]task.Signature, n)
	for i := range members {
		members[i] = task.S("bench.one")
	}
	r, err := s.client.Apply(ctx, task.Chord(task.Group(members...), task.S("bench.count")))
	if err != nil {
		return 0, err
	}
	took, err := s.while(ctx, func() error {
		_, err := r.Get(ctx)
		return err
	})
	if err == nil && (s.bodies.Load() != before+1 || s.parts.Load() != int64(n)) {
		err = fmt.Errorf("%d bodies ran, the last with %d of %d results", s.bodies.Load()-before, s.parts.Load(), n)
	}
	return float64(n) / took.Seconds(), err
}

func (s *site) long(ctx context.Context, n int) error {
	steps := []task.Signature{task.S("bench.next", 0)}
	for len(steps) < n {
		steps = append(steps, task.S("bench.next"))
	}
	r, err := s.client.Apply(ctx, task.Chain(steps...))
	if err != nil {
		return err
	}
	took, err := s.while(ctx, func() error { return wants(ctx, r, n) })
	if err == nil {
		fmt.Printf("chain of %d steps: %v, %.0f steps/s\n", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
	}
	return err
}

// nested is chords in the headers and in the bodies of chords.
func (s *site) nested(ctx context.Context, depth int) error {
	one, count := task.S("bench.one"), task.S("bench.count")
	inHeaders, inBodies := task.Group(one, one), count
	for range depth {
		inHeaders = task.Group(task.Chord(inHeaders, count), one)
		inBodies = task.Chain(count, task.Group(task.S("bench.next"), task.S("bench.next")), inBodies)
	}
	took, err := s.while(ctx, func() error {
		for _, sig := range []task.Signature{task.Chord(inHeaders, count), task.Chord(task.Group(one, one), inBodies)} {
			r, err := s.client.Apply(ctx, sig)
			if err == nil {
				err = wants(ctx, r, 2)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		fmt.Printf("%d chords in headers and %d in bodies of chords: %v\n", depth, depth, took.Round(time.Millisecond))
	}
	return err
}

func wants(ctx context.Context, r *task.Result[any], n int) error {
	v, err := r.Get(ctx)
	if err == nil && v != int64(n) {
		err = fmt.Errorf("the result is %v, expected %d", v, n)
	}
	return err
}

// large sends a group, and tells how much the heap held at most while it did.
func (s *site) large(ctx context.Context, n int) error {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, uint64(0)
	begun := time.Now()
	group, err := s.client.ApplyGroup(ctx, func(yield func(task.Signature) bool) {
		for i := range n {
			if i%5000 == 0 {
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
			if !yield(task.S("bench.one")) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	took := time.Since(begun)
	fmt.Printf("group of %d sent in %v, %.0f/s; the heap grew by at most %.1f MiB, %d bytes a member\n", len(group.Results()), took.Round(time.Millisecond),
		float64(n)/took.Seconds(), float64(most-before)/(1<<20), (most-before)/uint64(n))
	return nil
}
