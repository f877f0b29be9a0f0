// Command compare measures Gelery beside asynq on one Redis, in turn and under the same conditions:
//
//	go run ./cmd/compare                                       # everything, as a check
//	go run ./cmd/compare -only drain -concurrency 10 -pairs 3
//
// It starts a redis-server of its own, pinned to one core. Each side runs as a process of its own (this program again)
// with GOMAXPROCS=1, pinned to the other core. Pairs are interleaved, A B A B, so that whatever else the machine does
// strikes both; a ratio is taken within a pair, and the median over the pairs is the answer.
//
// What is measured:
//
//	drain    a queue filled beforehand with add(x, y), from the start of the worker until the last result is stored and
//	         its message acknowledged; then every result is read and checked
//	enqueue  one producer process: one call after the other, the same from 10 goroutines, and pipelined (Gelery:
//	         SendBatch of 100; asynq, which has no batch: 10 goroutines)
//	latency  Gelery alone: from Send to the pushed result at a steady rate
//	memory   Gelery alone: VmRSS of a worker, idle, with 100,000 tasks queued, and after them
//	events   Gelery alone: the drain with task events (worker -E) beside the drain without
//
// Exit codes: 0 every bound holds, 1 one does not or a result is missing, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// sides are what a measured process can be.
var sides = map[string]lab.Side{
	"gelery-worker":  geleryWorker,
	"gelery-enqueue": lab.Enqueue(geleryHold),
	"gelery-latency": lab.Latency,
	"ping":           ping,
	"asynq-worker":   asynqWorker,
	"asynq-enqueue":  asynqEnqueue,
}

// config is the command line.
type config struct {
	only        []string
	pairs       int
	concurrency []int
	tasks       int
	minDrain    float64
	minEnqueue  float64
	minEvents   float64
	rate        int
	maxP99      time.Duration
	maxIdle     int // MiB
	maxGrowth   int // MiB
	profile     string
	redisCore   string
	workCore    string
	timeout     time.Duration
}

var all = []string{"drain", "enqueue", "latency", "memory", "events"}

func main() { lab.Main("compare", sides, parse, measure) }

// Limit implements lab.Config.
func (c config) Limit() time.Duration { return c.timeout }

func parse(args []string) (config, error) {
	var c config
	var only, concurrency string
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.StringVar(&only, "only", strings.Join(all, ","), "what to measure")
	f.IntVar(&c.pairs, "pairs", 7, "interleaved pairs of each comparison")
	f.StringVar(&concurrency, "concurrency", "10,100", "concurrencies of the drain")
	f.IntVar(&c.tasks, "tasks", 30_000, "tasks of one drain or enqueue run")
	f.Float64Var(&c.minDrain, "min-drain", 2.5, "least median ratio of drain rates")
	f.Float64Var(&c.minEnqueue, "min-enqueue", 1.5, "least median ratio of enqueue rates")
	f.Float64Var(&c.minEvents, "min-events", 0.85, "least median ratio of drain rates with events and without")
	f.IntVar(&c.rate, "rate", 200, "tasks a second of the latency run")
	f.DurationVar(&c.maxP99, "max-p99", 5*time.Millisecond, "greatest 99th percentile of the latency run")
	f.IntVar(&c.maxIdle, "max-idle", 30, "MiB an idle worker may have resident")
	f.IntVar(&c.maxGrowth, "max-growth", 10, "MiB that 100,000 queued tasks may add")
	f.StringVar(&c.profile, "profile", "", "folder for CPU profiles of the measured processes")
	f.StringVar(&c.redisCore, "redis-core", "0", "core for redis-server")
	f.StringVar(&c.workCore, "work-core", "1", "core for the measured process")
	f.DurationVar(&c.timeout, "timeout", 30*time.Minute, "give up after")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	c.only = strings.Split(only, ",")
	for _, name := range c.only {
		if !slices.Contains(all, name) {
			return c, fmt.Errorf("-only %s: expected some of %s", name, strings.Join(all, ","))
		}
	}
	for text := range strings.SplitSeq(concurrency, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return c, fmt.Errorf("-concurrency %s: expected numbers from 1", text)
		}
		c.concurrency = append(c.concurrency, n)
	}
	if c.pairs < 1 || c.tasks < 100 || c.rate < 1 || f.NArg() > 0 {
		return c, errors.New("expected no arguments, -pairs and -rate from 1, -tasks from 100")
	}
	return c, nil
}

// measure measures what was asked for and returns the bounds that do not hold.
func measure(ctx context.Context, c config) (missed []string, err error) {
	b, err := newBench(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	fmt.Println(b.describe(ctx))
	for _, name := range c.only {
		switch name {
		case "drain":
			for _, n := range c.concurrency {
				err = errors.Join(err, b.compareDrain(ctx, n))
			}
		case "enqueue":
			err = b.compareEnqueue(ctx)
		case "latency":
			err = b.measureLatency(ctx)
		case "memory":
			err = b.measureMemory(ctx)
		case "events":
			for _, n := range c.concurrency {
				err = errors.Join(err, b.compareEvents(ctx, n))
			}
		}
		if err != nil {
			return b.missed, err
		}
	}
	return b.missed, nil
}
