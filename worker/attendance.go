package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gelery/gelery/transport"
)

// attendance is who attends to the world outside as long as the worker is there, from before it receives until the last
// acknowledgement: remote control, events, who keeps what is revoked, and who tells how the worker is.
type attendance struct {
	w       *Worker
	ctx     context.Context
	cancel  context.CancelFunc
	actors  sync.WaitGroup
	control *control  // nil: disabled
	since   time.Time // when the broker was asked for what is revoked
}

// attend makes ready: what was revoked is known, and commands are heard, before the first task comes.
func (w *Worker) attend(ctx context.Context) (*attendance, error) {
	a := &attendance{w: w}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if w.config.HealthAddr != "" || w.config.Health != nil {
		var err error
		if w.health, err = newHealth(ctx, w); err != nil {
			a.cancel()
			return nil, err
		}
		a.actors.Go(func() { w.health.probe(a.ctx) })
	}
	keeper, _ := w.client.Transport().(transport.Keeper)
	a.since = w.revoked.recall(ctx, keeper, time.Time{})
	if !w.config.DisableRemoteControl {
		a.control = newControl(ctx, w)
	}
	if w.gossip != nil {
		a.actors.Go(func() { w.gossip.run(a.ctx) })
	}
	w.events.begin()
	a.actors.Go(func() { w.events.run(a.ctx) })
	return a, nil
}

// begin starts the actors. The worker receives.
func (a *attendance) begin() {
	a.actors.Go(func() { a.w.revoked.keep(a.ctx, a.since) })
	if c := a.control; c != nil {
		a.actors.Go(func() { c.talk(a.ctx) })
		if !a.w.config.DisableMingle {
			a.actors.Go(func() { a.w.mingle(a.ctx, c) })
		}
	}
}

// close ends them, also if they did not begin.
func (a *attendance) close() error {
	a.cancel()
	var err error
	if h := a.w.health; h != nil {
		err = h.close()
	}
	a.actors.Wait()
	if c := a.control; c != nil && c.heard != nil {
		err = errors.Join(err, c.heard.Close())
	}
	return err
}
