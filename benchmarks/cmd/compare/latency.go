package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
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
		p99 := percentile(sorted, 99)
		p99s[i] = float64(p99)
		fmt.Printf("%4d p50 %v, p99 %v, max %v (load %s)\n", i+1, percentile(sorted, 50).Round(time.Microsecond),
			p99.Round(time.Microsecond), percentile(sorted, 100).Round(time.Microsecond), load())
	}
	p99 := time.Duration(median(p99s))
	b.require(p99 < b.maxP99, "latency: median p99 %v is not below %v", p99, b.maxP99)
	return nil
}

// latencies are those of one run, sorted.
func (b *bench) latencies(ctx context.Context) (_ []time.Duration, err error) {
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return nil, err
	}
	worker, err := b.start(ctx, order{Side: "gelery-worker", Concurrency: 10}, b.workCore)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, worker.stop()) }()
	if _, err := worker.next(); err != nil {
		return nil, err
	}
	r, err := b.produce(ctx, order{Side: "gelery-latency", Tasks: b.rate * latencySeconds, Rate: b.rate}, b.workCore)
	slices.Sort(r.Latencies)
	return r.Latencies, err
}

// percentile of sorted values: the least one that at least p percent do not exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
