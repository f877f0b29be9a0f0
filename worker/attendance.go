package worker

import (
	"context"
	"sync"
	"time"

	"github.com/gelery/gelery/transport"
)

// attendance is who attends to the world outside as long as the worker is there, from before it receives until the last
// acknowledgement: remote control, and who keeps what is revoked.
type attendance struct {
	w       *Worker
	ctx     context.Context
	cancel  context.CancelFunc
	actors  sync.WaitGroup
	control *control  // nil: disabled
	since   time.Time // when the broker was asked for what is revoked
}

// attend makes ready: what was revoked is known, and commands are heard, before the first task comes.
func (w *Worker) attend(ctx context.Context) *attendance {
	a := &attendance{w: w}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	keeper, _ := w.client.Transport().(transport.Keeper)
	a.since = w.revoked.recall(ctx, keeper, time.Time{})
	if !w.config.DisableRemoteControl {
		a.control = newControl(ctx, w)
	}
	return a
}

// begin starts the actors. The worker receives.
func (a *attendance) begin() {
	a.actors.Go(func() { a.w.revoked.keep(a.ctx, a.since) })
	if c := a.control; c != nil {
		a.actors.Go(func() { c.listen(a.ctx) })
		a.actors.Go(func() { c.obey(a.ctx) })
		a.actors.Go(func() { c.reply(a.ctx) })
	}
}

// close ends them, also if they did not begin.
func (a *attendance) close() error {
	a.cancel()
	a.actors.Wait()
	if c := a.control; c != nil && c.heard != nil {
		return c.heard.Close()
	}
	return nil
}
