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
	latencyRuns = 3
	slots       = 100 // of the worker whose memory is measured
)

// measureLatency has one process send at a steady rate and wait for the pushed results of a worker with 10 slots.
func (b *bench) measureLatency(ctx context.Context, kind string, results backend) error {
	fmt.Printf("\nlatency, %s queue, %v results, %d tasks/s for %d s, from send to pushed result\n",
		kind, results, b.rate, b.seconds)
	for i := range latencyRuns {
		sorted, cores, err := b.latencies(ctx, kind, results)
		if err != nil {
			return err
		}
		of := func(p int) time.Duration { return lab.Percentile(sorted, p).Round(time.Microsecond) }
		fmt.Printf("%4d p50 %v, p99 %v, max %v; the broker took %.2f cores (load %s)\n",
			i+1, of(50), of(99), of(100), cores, lab.Load())
	}
	return nil
}

// latencies are those of one run, sorted, and what the broker computed meanwhile.
func (b *bench) latencies(ctx context.Context, kind string, results backend) (_ []time.Duration, cores float64, err error) {
	o := b.order("gelery-latency", kind, results)
	o.Rate, o.Tasks = b.rate, b.rate*b.seconds
	worker, err := b.worker(ctx, kind, results, 10)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, worker.Stop()) }()
	cost := lab.CostsOf(b.broker.Pid())
	r, err := b.place.Produce(ctx, o)
	slices.Sort(r.Latencies)
	return r.Latencies, cost.Run(o.Tasks, time.Second).Costs[0] * float64(b.rate) / 1e6, err
}

// worker starts one on an empty queue and sends one task through it: from then on it is as it will be.
func (b *bench) worker(ctx context.Context, kind string, results backend, concurrency int) (_ *lab.Process, err error) {
	if err := b.empty(ctx); err != nil {
		return nil, err
	}
	o := b.order("gelery-worker", kind, results)
	o.Concurrency = concurrency
	worker, err := b.place.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	_, err = worker.Next()
	if err == nil {
		one := b.order("gelery-latency", kind, results)
		one.Tasks, one.Rate = 1, 1
		_, err = b.place.Produce(ctx, one)
	}
	if err != nil {
		return nil, errors.Join(err, worker.Stop())
	}
	return worker, nil
}

// measureMemory reads the resident memory of a worker that has nothing to do.
func (b *bench) measureMemory(ctx context.Context) (err error) {
	worker, err := b.worker(ctx, queueTypes[0], redisResults, slots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.Stop()) }()
	idle, err := lab.Resident(worker.Pid())
	if err != nil {
		return err
	}
	fmt.Printf("\nmemory of an idle worker with %d slots (VmRSS): %.1f MiB\n", slots, idle)
	return nil
}
