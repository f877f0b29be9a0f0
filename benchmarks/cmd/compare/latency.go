package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

const (
	latencySeconds = 10
	latencyRuns    = 3
)

// measureLatency has one process send at a steady rate and wait for the pushed results of a worker with 10 slots. Sender
// and worker share a core, which is the harder way: they would be on two machines. Of several runs the one with the
// median p99 counts.
func (b *bench) measureLatency(ctx context.Context) error {
	fmt.Printf("\nlatency, %d tasks/s for %d s, from send to pushed result\n", b.rate, latencySeconds)
	p99s := make([]float64, latencyRuns)
	for i := range p99s {
		sorted, err := b.latencies(ctx)
		if err != nil {
			return err
		}
		p99 := lab.Percentile(sorted, 99)
		p99s[i] = float64(p99)
		fmt.Printf("%4d p50 %v, p99 %v, max %v (load %s)\n", i+1, lab.Percentile(sorted, 50).Round(time.Microsecond),
			p99.Round(time.Microsecond), lab.Percentile(sorted, 100).Round(time.Microsecond), lab.Load())
	}
	p99 := time.Duration(lab.Median(p99s))
	b.require(p99 < b.maxP99, "latency: median p99 %v is not below %v", p99, b.maxP99)
	return nil
}

// latencies are those of one run, sorted.
func (b *bench) latencies(ctx context.Context) (_ []time.Duration, err error) {
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	worker, err := b.start(ctx, lab.Order{Side: "gelery-worker", Concurrency: 10})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, worker.Stop()) }()
	if _, err := worker.Next(); err != nil {
		return nil, err
	}
	r, err := b.produce(ctx, lab.Order{Side: "gelery-latency", Tasks: b.rate * latencySeconds, Rate: b.rate})
	slices.Sort(r.Latencies)
	return r.Latencies, err
}
