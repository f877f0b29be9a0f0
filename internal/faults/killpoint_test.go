//go:build unix

package faults

import (
	"context"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/gelery/gelery/transport"
)

// killPoint is a moment at which a worker process kills itself.
type killPoint string

const (
	beforeStore    killPoint = "before a result is stored"
	beforeAnnounce killPoint = "before a chord is announced"         // the result of what was before it is stored
	beforeCount    killPoint = "before a part of a chord is counted" // its result is stored
	afterCount     killPoint = "after a part of a chord was counted" // maybe the last one, whose body is not sent
	beforeBody     killPoint = "before the body of a chord is published"
	afterBody      killPoint = "after the body of a chord was published" // the chord is not ended
	afterPublish   killPoint = "after what follows a task was published"
	beforePublish  killPoint = "before what follows a task is published" // its result, or RETRY, is stored
	beforeSettle   killPoint = "before acknowledgements"                 // results are stored, what follows is published
)

// deadly is the transport of a worker that kills itself.
type deadly struct {
	transport.Transport
	point killPoint
	at    int64
	times atomic.Int64
}

// come kills the process when it comes to its kill point the chosen time. SIGKILL takes effect before kill(2) returns.
func (d *deadly) come(point killPoint) {
	if point == d.point && d.times.Add(1) == d.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
}

func (d *deadly) Publish(ctx context.Context, batch []transport.Publication) error {
	body := slices.ContainsFunc(batch, func(p transport.Publication) bool { return p.Message.Headers.Once() != "" })
	d.come(beforePublish)
	if body {
		d.come(beforeBody)
	}
	err := d.Transport.Publish(ctx, batch)
	d.come(afterPublish)
	if body {
		d.come(afterBody)
	}
	return err
}

func (d *deadly) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	c, err := d.Transport.Consume(ctx, o)
	if err != nil {
		return nil, err
	}
	return &deadlyConsumer{c, d}, nil
}

type deadlyConsumer struct {
	transport.Consumer
	*deadly
}

func (c *deadlyConsumer) Settle(ctx context.Context, batch []transport.Settlement) (lost int, err error) {
	c.come(beforeSettle)
	return c.Consumer.Settle(ctx, batch)
}

// Close is the consumer's.
func (c *deadlyConsumer) Close(ctx context.Context) error { return c.Consumer.Close(ctx) }
