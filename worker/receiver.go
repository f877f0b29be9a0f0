package worker

import (
	"context"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// job is an admitted delivery.
type job struct {
	delivery *transport.Delivery
	request  *protocol.Request
	task     *registered

	entered time.Time // a room
	limits  []limit   // those that let it run, and hear of its end
	let     time.Time // when they did
	child   *child    // the process it runs in; nil: this one
	place   place     // among the reserved ones
}

// receive is the actor that pulls deliveries into the window and admits them, until ctx is done.
func (w *Worker) receive(ctx context.Context) {
	for {
		w.pulses.room.begin()
		free := w.window.wait(ctx)
		w.pulses.room.end()
		if free == 0 {
			return
		}
		batch, err := w.consumer.Receive(ctx, free)
		if err != nil {
			return // ctx is done, or the consumer is closed
		}
		w.window.take(len(batch))
		w.pulses.receive.begin()
		for i := range batch {
			w.admit(ctx, &batch[i])
		}
		w.pulses.receive.end()
	}
}

// window counts the deliveries held but not settled, and lets the receiver wait until enough are free that a round
// trip is worth it. Parked deliveries are not counted: they wait for a time, not for a slot.
type window struct {
	mu               sync.Mutex
	size, worthwhile int
	held             int           // more than size after it was made smaller
	freed            chan struct{} // capacity 1
}

func newWindow(size, worthwhile int) *window {
	return &window{size: size, worthwhile: worthwhile, freed: make(chan struct{}, 1)}
}

// wait returns how many more may be held, or 0 when ctx is done.
func (w *window) wait(ctx context.Context) int {
	for ctx.Err() == nil {
		w.mu.Lock()
		free, worthwhile := w.size-w.held, w.worthwhile
		w.mu.Unlock()
		if free >= worthwhile {
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
	w.wake()
}

// wake lets wait look again.
func (w *window) wake() {
	select {
	case w.freed <- struct{}{}:
	default:
	}
}

// resize changes how many may be held. What is held already stays.
func (w *window) resize(size, worthwhile int) {
	w.mu.Lock()
	w.size, w.worthwhile = size, worthwhile
	w.mu.Unlock()
	w.wake()
}

// bound is how many may be held.
func (w *window) bound() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}
