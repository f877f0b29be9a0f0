package worker

import (
	"context"
	"sync"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// job is an admitted delivery.
type job struct {
	delivery *transport.Delivery
	request  *protocol.Request
	task     *registered
}

// receive is the actor that pulls deliveries into the window and admits them, until ctx is done.
func (w *Worker) receive(ctx context.Context) {
	for {
		free := w.window.wait(ctx)
		if free == 0 {
			return
		}
		batch, err := w.consumer.Receive(ctx, free)
		if err != nil {
			return // ctx is done, or the consumer is closed
		}
		w.window.take(len(batch))
		for i := range batch {
			w.admit(ctx, &batch[i])
		}
	}
}

// window counts the deliveries held but not settled, and lets the receiver wait until enough are free that a round
// trip is worth it. Parked deliveries are not counted: they wait for a time, not for a slot.
type window struct {
	size, worthwhile int

	mu    sync.Mutex
	held  int
	freed chan struct{} // capacity 1
}

func newWindow(size, worthwhile int) *window {
	return &window{size: size, worthwhile: worthwhile, freed: make(chan struct{}, 1)}
}

// wait returns how many more may be held, or 0 when ctx is done.
func (w *window) wait(ctx context.Context) int {
	for ctx.Err() == nil {
		w.mu.Lock()
		free := w.size - w.held
		w.mu.Unlock()
		if free >= w.worthwhile {
			return free
		}
		select {
		case <-w.freed:
		case <-ctx.Done():
		}
	}
	return 0
}

func (w *window) take(n int) {
	w.mu.Lock()
	w.held += n
	w.mu.Unlock()
}

func (w *window) free(n int) {
	w.mu.Lock()
	w.held -= n
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default:
	}
}
