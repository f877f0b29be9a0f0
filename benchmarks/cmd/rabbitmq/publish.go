package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// publish measures one producer process on an empty queue and checks that every message is there.
func (b *bench) publish(ctx context.Context, o lab.Order) (_ lab.Run, err error) {
	producer, err := b.place.Start(ctx, o)
	if err != nil {
		return lab.Run{}, err
	}
	defer func() { err = errors.Join(err, producer.Stop()) }()
	cost := b.costsOf(producer)
	done, err := producer.Next()
	if err != nil {
		return lab.Run{}, err
	}
	return cost.Run(o.Tasks, time.Duration(done.Seconds*float64(time.Second))), b.expect(o.Tasks)
}

func (b *bench) publishGelery(ctx context.Context, o lab.Order) (lab.Run, error) {
	if err := b.empty(ctx); err != nil {
		return lab.Run{}, err
	}
	return b.publish(ctx, o)
}

// publishMinimal lets Gelery declare the queue and put one message into it, which is the one that is sent then.
func (b *bench) publishMinimal(ctx context.Context, o lab.Order) (lab.Run, error) {
	one := b.order("gelery-publish", o.QueueType, noResults)
	one.Tasks = 1
	if err := b.fill(ctx, one); err != nil {
		return lab.Run{}, err
	}
	return b.publish(ctx, o)
}

// comparePublish runs the pairs of one producer process, in three ways.
func (b *bench) comparePublish(ctx context.Context, kind string) error {
	for _, way := range []struct {
		name      string
		producers int // of Gelery
		batch     int
		window    int // of minimal
		tasks     int
		bounded   bool
	}{
		{"one at a time", 1, 1, 1, b.tasks / 10, false},
		{fmt.Sprintf("pipelined (gelery: batches of %d from %d goroutines; minimal: %d unconfirmed)", batch, producers, window),
			producers, batch, window, b.tasks, true},
		{fmt.Sprintf("gelery: batches of %d from one goroutine; minimal: %d unconfirmed", batch, window),
			1, batch, window, b.tasks, false},
	} {
		what := "publish, " + kind + " queue, " + way.name
		gelery, minimal := b.order("gelery-publish", kind, noResults), b.order("minimal-publish", kind, noResults)
		gelery.Producers, gelery.Batch, gelery.Tasks = way.producers, way.batch, way.tasks
		minimal.Batch, minimal.Tasks = way.window, way.tasks
		p, err := b.compare(what, way.tasks, func() (lab.Run, error) { return b.publishGelery(ctx, gelery) },
			func() (lab.Run, error) { return b.publishMinimal(ctx, minimal) })
		if err != nil {
			return err
		}
		if way.bounded {
			b.require(p.Median() >= b.minPublish, "%s: median %.2f is below %.2f", what, p.Median(), b.minPublish)
		}
	}
	return nil
}
