package transporttest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/transport"
)

// received is what a Receive returned.
type received struct {
	deliveries []transport.Delivery
	err        error
}

// askedDone is a context that tells when somebody asks it for Done: the last thing before waiting for that.
type askedDone struct {
	context.Context
	once  sync.Once
	asked chan struct{}
}

func (a *askedDone) Done() <-chan struct{} {
	a.once.Do(func() { close(a.asked) })
	return a.Context.Done()
}

// eitherOrder lets an event come before a Receive and while one waits, each time with a new consumer of q: the one that
// waits must notice, the one that comes later must find it so. Cancel ends the Receive's context.
func (b *bench) eitherOrder(event func(c transport.Consumer, cancel context.CancelCauseFunc),
	check func(c transport.Consumer, r received)) {
	b.Helper()
	for _, waits := range []bool{false, true} {
		c := b.consume("q")
		parent, cancel := context.WithCancelCause(b.context())
		ctx := &askedDone{Context: parent, asked: make(chan struct{})}
		done := make(chan received, 1)
		receive := func() {
			ds, err := c.Receive(ctx, 5)
			done <- received{ds, err}
		}
		if waits {
			go receive()
			b.untilWaiting(c, ctx.asked)
			if len(done) > 0 {
				b.Fatalf("Receive returned %+v with nothing to return for", <-done)
			}
		}
		event(c, cancel)
		if !waits {
			go receive()
		}
		select {
		case r := <-done:
			check(c, r)
		case <-time.After(patience):
			b.Fatalf("Receive did not return; it was waiting before: %v", waits)
		}
		cancel(nil)
		if err := c.Close(b.context()); err != nil {
			b.Errorf("close consumer: %v", err)
		}
	}
}

func (b *bench) untilWaiting(c transport.Consumer, asked <-chan struct{}) {
	b.Helper()
	if b.Waiting != nil {
		b.Waiting(b, c)
		return
	}
	select {
	case <-asked:
	case <-time.After(patience):
		b.Fatal("Receive does not look at its context")
	}
}

func testReceiveWaits(_ *testing.T, b *bench) {
	b.eitherOrder(func(transport.Consumer, context.CancelCauseFunc) {
		b.publish("q", "late")
	}, func(c transport.Consumer, r received) {
		b.wantIDs(r.deliveries, "late")
		b.settle(c, transport.Ack, "", r.deliveries...)
	})
}

func testReceiveContext(t *testing.T, b *bench) {
	why := errors.New("enough")
	b.eitherOrder(func(_ transport.Consumer, cancel context.CancelCauseFunc) {
		cancel(why)
	}, func(c transport.Consumer, r received) {
		if !errors.Is(r.err, why) {
			t.Errorf("Receive returned %v; expected the context's cause", r.err)
		}
		b.publish("q", "after")
		ds := b.receive(c, 1)
		b.wantIDs(ds, "after")
		b.settle(c, transport.Ack, "", ds...)
	})
}

func testCloseEndsReceive(t *testing.T, b *bench) {
	b.eitherOrder(func(c transport.Consumer, _ context.CancelCauseFunc) {
		if err := c.Close(b.context()); err != nil {
			t.Errorf("close: %v", err)
		}
	}, func(_ transport.Consumer, r received) {
		if !errors.Is(r.err, transport.ErrClosed) {
			t.Errorf("Receive returned %v; expected ErrClosed", r.err)
		}
	})
}
