package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

const (
	// pipelineBatch is Gelery's way to send fast. asynq has no batch; its way are goroutines that share a client. A
	// hundred of them gain it about a tenth over ten.
	pipelineBatch     = 100
	pipelineProducers = 10
)

// enqueue measures one producer process on an empty server and checks that every task is queued.
func (b *bench) enqueue(ctx context.Context, s system, o lab.Order) (_ lab.Run, err error) {
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return lab.Run{}, err
	}
	o.Side, o.Tasks = s.name+"-enqueue", b.tasks
	producer, err := b.start(ctx, o)
	if err != nil {
		return lab.Run{}, err
	}
	defer func() { err = errors.Join(err, producer.Stop()) }()
	cost := lab.CostsOf(producer.Pid(), b.server.Pid())
	done, err := producer.Next()
	if err != nil {
		return lab.Run{}, err
	}
	r := cost.Run(b.tasks, time.Duration(done.Seconds*float64(time.Second)))
	queued, err := s.queued(ctx, b)
	if err == nil && queued != int64(b.tasks) {
		err = fmt.Errorf("%s has %d tasks queued; expected %d", s.name, queued, b.tasks)
	}
	return r, err
}

// compareEnqueue runs the pairs of one producer process, in three ways.
func (b *bench) compareEnqueue(ctx context.Context) error {
	for _, way := range []struct {
		name    string
		order   func(system) lab.Order
		bounded bool
		floor   bool
	}{
		{"one at a time", func(system) lab.Order { return lab.Order{} }, true, true},
		{fmt.Sprintf("one at a time in each of %d goroutines", pipelineProducers),
			func(system) lab.Order { return lab.Order{Producers: pipelineProducers} }, false, false},
		{fmt.Sprintf("pipelined (gelery: batches of %d; asynq: %d goroutines)", pipelineBatch, pipelineProducers),
			func(s system) lab.Order { return s.pipelined }, true, false},
	} {
		what := "enqueue, " + way.name
		p, err := b.pairsOf(what, func(s system) (lab.Run, error) { return b.enqueue(ctx, s, way.order(s)) })
		if err != nil {
			return err
		}
		if way.bounded {
			b.require(p.Median() >= b.minEnqueue, "%s: median %.2f is below %.2f", what, p.Median(), b.minEnqueue)
		}
		if way.floor {
			if err := b.showFloor(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// showFloor says how much one at a time could be at all. Whoever waits for Redis's answer before the next call cannot be
// faster than a PING, which carries nothing and does nothing.
func (b *bench) showFloor(ctx context.Context, p lab.Pairs) error {
	r, err := b.produce(ctx, lab.Order{Side: "ping", Tasks: b.tasks})
	if err != nil {
		return err
	}
	pings := float64(b.tasks) / r.Seconds
	fmt.Printf("     a bare PING from the same client library: %.0f/s, %.2f times asynq: no client that waits for its answers does better\n",
		pings, pings/lab.MedianRun(p.B).Rate)
	return nil
}

// ping makes Tasks round trips, one after the other.
func ping(ctx context.Context, o lab.Order, say func(lab.Report)) error {
	c := redis.NewClient(&redis.Options{Addr: o.Redis, Protocol: 2})
	defer func() { _ = c.Close() }()
	begun := time.Now()
	if err := lab.Share(o, func(int) error { return c.Ping(ctx).Err() }); err != nil {
		return err
	}
	say(lab.Report{Seconds: time.Since(begun).Seconds()})
	return nil
}
