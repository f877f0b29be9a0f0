package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

const (
	benchBatch       = 100
	benchRate        = 200 // tasks a second, where the latency is measured
	benchLatencyTime = 5   // seconds
)

type benchArgs struct {
	X int `task:"x"`
	Y int `task:"y"`
}

var benchAdd = task.Define[benchArgs, int]("bench.add")

// bench takes measures on one broker, in a queue of its own.
type bench struct {
	f       *benchFlags
	client  *task.Client
	shut    func()
	broker  string
	options map[string]any // of the broker's transport
	queue   string
	log     *slog.Logger

	mu   sync.Mutex
	sent map[string]int // what was sent and not yet forgotten: id and x
}

func (a *app) newBench(ctx context.Context, f *benchFlags, broker, backend string, log *slog.Logger) (*bench, error) {
	if backend == "" {
		return nil, usage("there is no result backend", "none is given, and the broker "+broker+" keeps no results", "give one with --result-backend")
	}
	config := a.config(broker, backend, log)
	b := &bench{f: f, broker: broker, options: config.TransportOptions, log: log, sent: map[string]int{},
		queue: "gelery-bench-" + uuid.NewString()[:8]}
	config.Queue = b.queue
	var err error
	b.client, b.shut, err = connectBriefly(ctx, config)
	return b, err
}

func (b *bench) measure(ctx context.Context, only []string, d *benchDocument) (err error) {
	for _, name := range benchMeasures {
		if !slices.Contains(only, name) {
			continue
		}
		switch name {
		case "enqueue":
			d.Enqueue, err = b.enqueue(ctx)
		case "drain":
			d.Drain, err = b.drain(ctx)
		case "latency":
			d.Latency, err = b.latency(ctx)
		case "memory":
			d.Memory, err = b.memory(ctx)
		}
		if err = errors.Join(err, b.clean(ctx)); err != nil {
			return fmt.Errorf("measure %s: %w", name, err)
		}
	}
	return nil
}

func (b *bench) remember(id string, x int) {
	b.mu.Lock()
	b.sent[id] = x
	b.mu.Unlock()
}

// fill sends tasks in batches: task x adds 1 to x.
func (b *bench) fill(ctx context.Context, tasks int) error {
	calls := make([]task.Call, 0, benchBatch)
	for x := 0; x < tasks; {
		calls = calls[:0]
		first := x
		for ; x < min(first+benchBatch, tasks); x++ {
			calls = append(calls, benchAdd.Call(benchArgs{x, 1}))
		}
		results, err := b.client.SendBatch(ctx, calls)
		if err != nil {
			return err
		}
		for i, r := range results {
			b.remember(r.ID(), first+i)
		}
	}
	return nil
}

func (b *bench) enqueue(ctx context.Context) (*benchEnqueue, error) {
	single := b.f.tasks / 10
	begun := time.Now()
	for x := range single {
		r, err := benchAdd.Send(ctx, b.client, benchArgs{x, 1})
		if err != nil {
			return nil, err
		}
		b.remember(r.ID(), x)
	}
	e := &benchEnqueue{Single: perSecond(single, begun)}
	begun = time.Now()
	if err := b.fill(ctx, b.f.tasks); err != nil {
		return nil, err
	}
	e.Pipelined = perSecond(b.f.tasks, begun)
	return e, nil
}

func perSecond(n int, begun time.Time) float64 { return float64(n) / time.Since(begun).Seconds() }

// startWorker runs a worker in this process. Run is called in each task. Stop ends it warm and tells how it ended: when
// it returns, everything run is stored and acknowledged.
func (b *bench) startWorker(ctx context.Context, run func()) (stop func() error, err error) {
	mux := worker.NewMux()
	worker.Handle(mux, benchAdd, func(_ context.Context, a benchArgs) (int, error) {
		run()
		return a.X + a.Y, nil
	})
	w, err := worker.New(b.client, mux, worker.Config{Queues: []string{b.queue}, Concurrency: b.f.concurrency, Logger: b.log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}, nil
}

func (b *bench) drain(ctx context.Context) (*benchDrain, error) {
	if err := b.fill(ctx, b.f.tasks); err != nil {
		return nil, err
	}
	var ran atomic.Int64
	all := make(chan struct{})
	begun := time.Now()
	stop, err := b.startWorker(ctx, func() {
		if ran.Add(1) == int64(b.f.tasks) {
			close(all)
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-all:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	err = errors.Join(err, stop())
	d := &benchDrain{Rate: perSecond(b.f.tasks, begun)}
	if err != nil {
		return nil, err
	}
	return d, b.verify(ctx)
}

// verify reads the results of all that was sent.
func (b *bench) verify(ctx context.Context) error {
	read := 0
	for meta, err := range b.client.Backend().Watch(ctx, slices.Collect(maps.Keys(b.sent))...) {
		if err != nil {
			return err
		}
		// The worker has stopped: what is not there now never comes.
		if sum, _ := meta.Result.(int64); meta.Status != protocol.Success || sum != int64(b.sent[meta.TaskID]+1) {
			return fmt.Errorf("task %s, %d + 1, is %s with result %v", meta.TaskID, b.sent[meta.TaskID], meta.Status, meta.Result)
		}
		read++
	}
	if read != len(b.sent) {
		return fmt.Errorf("%d results are there; expected %d", read, len(b.sent))
	}
	return nil
}

// latency sends at a steady rate. A call that leaves late because the machine was busy counts from when it was due.
func (b *bench) latency(ctx context.Context) (_ *benchLatency, err error) {
	stop, err := b.startWorker(ctx, func() {})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	n := min(benchRate*benchLatencyTime, b.f.tasks)
	took, errs := make([]time.Duration, n), make([]error, n)
	var waiting sync.WaitGroup
	begun := time.Now()
	for x := range n {
		due := begun.Add(time.Duration(x) * time.Second / benchRate)
		timer := time.NewTimer(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			errs[x] = context.Cause(ctx)
		}
		if errs[x] != nil {
			break
		}
		waiting.Go(func() {
			r, err := benchAdd.Send(ctx, b.client, benchArgs{x, 1})
			if err == nil {
				b.remember(r.ID(), x)
				_, err = r.Get(ctx)
			}
			took[x], errs[x] = time.Since(due), err
		})
	}
	waiting.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	slices.Sort(took)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return &benchLatency{Rate: benchRate, P50: ms(took[n/2]), P99: ms(took[n*99/100]), Max: ms(took[n-1])}, nil
}

// memory asks Redis how much it uses before and after. Nothing for brokers that are no Redis.
func (b *bench) memory(ctx context.Context) (*benchMemory, error) {
	before, ok, err := b.usedMemory(ctx)
	if err != nil || !ok {
		return nil, err
	}
	if err := b.fill(ctx, b.f.tasks); err != nil {
		return nil, err
	}
	after, _, err := b.usedMemory(ctx)
	return &benchMemory{Bytes: float64(after-before) / float64(b.f.tasks)}, err
}

// withRedis calls f with a connection to the broker, if that is a Redis.
func (b *bench) withRedis(f func(c *redisconn.Config) error) (isRedis bool, err error) {
	scheme, _, _ := strings.Cut(b.broker, ":")
	if !slices.Contains(redisconn.Schemes, scheme) {
		return false, nil
	}
	// The driver has checked the options; those of its own are none of ours.
	c, err := redisconn.Parse(b.broker, b.options, slices.Collect(maps.Keys(b.options))...)
	if err != nil {
		return true, err
	}
	return true, f(c)
}

func (b *bench) usedMemory(ctx context.Context) (used int64, ok bool, err error) {
	ok, err = b.withRedis(func(c *redisconn.Config) error {
		client := c.Client(redisconn.ClientOptions{PoolSize: 1})
		defer func() { _ = client.Close() }()
		info, err := client.Info(ctx, "memory").Result()
		if err != nil {
			return fmt.Errorf("INFO memory: %w", err)
		}
		_, rest, _ := strings.Cut(info, "used_memory:")
		text, _, _ := strings.Cut(rest, "\r\n")
		used, err = strconv.ParseInt(text, 10, 64)
		return err
	})
	return used, ok, err
}

// clean removes the tasks and results of a measure, also when it was interrupted.
func (b *bench) clean(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), operateTimeout)
	defer cancel()
	if in, ok := b.client.Transport().(transport.Inspector); ok {
		_, err = in.Purge(ctx, b.queue)
		_, quarantineErr := in.PurgeQuarantine(ctx, b.queue)
		err = errors.Join(err, quarantineErr)
	}
	err = errors.Join(err, b.client.Backend().Forget(ctx, slices.Collect(maps.Keys(b.sent))...))
	clear(b.sent)
	return err
}

// close removes the queue itself and ends the connections.
func (b *bench) close(ctx context.Context) error {
	defer b.shut()
	_, err := b.withRedis(func(c *redisconn.Config) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		client := c.Client(redisconn.ClientOptions{PoolSize: 1})
		defer func() { _ = client.Close() }()
		prefix, _ := b.options["global_keyprefix"].(string)
		return client.Del(ctx, prefix+"_kombu.binding."+b.queue).Err()
	})
	return err
}
