package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/rabbitmqserver"
	"github.com/gelery/gelery/internal/redisserver"
)

const (
	queue = "bench"
	// grace is how long a run is waited for after the last one should have been, and then for one too many.
	grace = 30 * time.Second
	// pollInterval is how often memory and ledger are looked at.
	pollInterval = 100 * time.Millisecond
)

// bench is one run of this program: the server, and what it found.
type bench struct {
	config
	url    string
	redis  *redis.Client // nil on RabbitMQ
	stop   func() error
	missed []string
}

func newBench(ctx context.Context, c config) (*bench, error) {
	b := &bench{config: c}
	if c.broker == "redis" {
		s, err := redisserver.Start(ctx)
		if err != nil {
			return nil, err
		}
		b.url, b.redis = s.URL, redis.NewClient(&redis.Options{Addr: s.Addr})
		b.stop = func() error { return errors.Join(b.redis.Close(), s.Stop()) }
		return b, nil
	}
	cluster, err := rabbitmqserver.Config{}.Start(ctx)
	if err != nil {
		return nil, err
	}
	b.url, b.stop = "amqp://guest:guest@"+cluster.Nodes[0].Addr+"//", cluster.Close
	return b, nil
}

// measure measures and returns the bounds that do not hold.
func measure(ctx context.Context, c config) (missed []string, err error) {
	b, err := newBench(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	fmt.Printf("%s, %d cores, %s; %d tasks, %d due a second, the first %v after the first send; concurrency %d; load %s\n",
		runtime.Version(), runtime.NumCPU(), c.broker, c.tasks, c.rate, c.lead, c.concurrency, lab.Load())
	err = b.run(ctx)
	return b.missed, err
}

// run sends the tasks, waits for all of their runs and judges them.
func (b *bench) run(ctx context.Context) (err error) {
	ledger, err := os.CreateTemp("", "gelery-delayed-") // written by the worker
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ledger.Close(), os.Remove(ledger.Name())) }()
	o := lab.Order{Side: "worker", Broker: b.url, Queue: queue, Tasks: b.tasks, Rate: b.rate, Concurrency: b.concurrency, Ledger: ledger.Name()}
	if b.broker != "redis" {
		o.QueueType = b.broker
	}
	worker, err := lab.Place{}.Start(ctx, o)
	if err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			err = errors.Join(err, worker.Stop())
		}
	}()
	if _, err := worker.Next(); err != nil {
		return err
	}
	memory := watchMemory(worker.Pid())
	defer memory.stop()
	first := time.Now().Add(b.lead)
	o.Side, o.From = "sender", first.UnixNano()
	sent, err := lab.Place{}.Produce(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("sent in %.1f s, %.0f a second\n", sent.Seconds, float64(b.tasks)/sent.Seconds)
	b.look(ctx, first, memory)
	last := first.Add(time.Duration(b.tasks) * time.Second / time.Duration(b.rate))
	if err := b.awaitRuns(ctx, ledger, last.Add(grace)); err != nil {
		return err
	}
	peak := memory.stop()
	running = false
	if err := worker.Stop(); err != nil {
		return err
	}
	return b.judge(ledger, peak)
}

// look says how it stands right before the first task is due.
func (b *bench) look(ctx context.Context, first time.Time, memory *memory) {
	timer := time.NewTimer(time.Until(first) - time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	fmt.Printf("a second before the first: worker %.1f MiB", memory.read())
	if b.redis != nil {
		delayed := b.redis.ZCard(ctx, "_gelery.delayed."+queue).Val()
		waiting := b.redis.LLen(ctx, queue).Val()
		used, _ := b.redis.InfoMap(ctx, "memory").Result()
		fmt.Printf(", %d delayed and %d waiting in Redis, which uses %s", delayed, waiting, used["Memory"]["used_memory_human"])
	}
	fmt.Println()
}

// awaitRuns waits until as many runs are noted as there are tasks and, on Redis, nothing is held any more; or until it is
// too late.
func (b *bench) awaitRuns(ctx context.Context, ledger *os.File, latest time.Time) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for time.Now().Before(latest) {
		info, err := ledger.Stat()
		if err != nil {
			return err
		}
		if info.Size() >= int64(b.tasks)*recordSize {
			if b.redis == nil || b.redis.HLen(ctx, "unacked").Val()+b.redis.LLen(ctx, queue).Val() == 0 {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// judge reads the ledger and compares what it finds with the bounds.
func (b *bench) judge(ledger io.ReadSeeker, peak float64) error {
	if _, err := ledger.Seek(0, io.SeekStart); err != nil {
		return err
	}
	runs := make([]uint8, b.tasks)
	lateness := make([]time.Duration, 0, b.tasks)
	early, twice := 0, 0
	for in := bufio.NewReaderSize(ledger, 1<<20); ; {
		var record [recordSize]byte
		if _, err := io.ReadFull(in, record[:]); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		n, late := binary.LittleEndian.Uint64(record[:8]), time.Duration(binary.LittleEndian.Uint64(record[8:]))
		if n >= uint64(b.tasks) {
			return fmt.Errorf("task %d ran; there are %d", n, b.tasks)
		}
		if runs[n] > 0 {
			twice++
		}
		runs[n] = 1
		if late < 0 {
			early++
		}
		lateness = append(lateness, late)
	}
	missing := 0
	for _, n := range runs {
		if n == 0 {
			missing++
		}
	}
	fmt.Printf("ran %d, missing %d, twice %d, early %d\n", len(lateness), missing, twice, early)
	b.require(missing == 0, "%d tasks did not run", missing)
	b.require(twice == 0, "%d tasks ran twice", twice)
	b.require(early == 0, "%d tasks ran early", early)
	if len(lateness) == 0 {
		return nil
	}
	slices.Sort(lateness)
	at := func(share float64) time.Duration {
		return lateness[min(len(lateness)-1, int(share*float64(len(lateness))))].Round(10 * time.Microsecond)
	}
	longest := at(1)
	fmt.Printf("lateness p50 %v, p99 %v, p99.9 %v, max %v\n", at(.5), at(.99), at(.999), longest)
	fmt.Printf("worker at most %.1f MiB resident; load %s\n", peak, lab.Load())
	b.require(longest < b.maxLate, "the latest task began %v after its eta, not below %v", longest, b.maxLate)
	b.require(peak < float64(b.maxMemory), "the worker had %.1f MiB resident, not below %d", peak, b.maxMemory)
	return nil
}

// require notes a bound that does not hold.
func (b *bench) require(ok bool, format string, args ...any) {
	if !ok {
		b.missed = append(b.missed, fmt.Sprintf(format, args...))
	}
}
