package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/gelery/gelery/transport"
)

// slots are the goroutines that run jobs, each one job after the other. How many there are can be changed at any time.
type slots struct {
	w     *Worker
	group sync.WaitGroup
	busy  atomic.Int64  // slots that have a job
	leave chan struct{} // holds one for each slot too many; the next that is free takes it, and ends

	// mu is held while the window and the broker's prefetch follow the size, so that they never follow another one.
	mu         sync.Mutex
	size       int
	ctx        context.Context      // of the slots; nil: they have not begun
	closed     bool                 // no more slots begin
	prefetcher transport.Prefetcher // nil: the broker need not be told
}

func newSlots(w *Worker, size int) *slots {
	return &slots{w: w, size: size, leave: make(chan struct{}, maxConcurrency)}
}

// start begins the slots. Once ctx is done they leave jobs held.
func (s *slots) start(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ctx = ctx
	s.prefetcher, _ = s.w.consumer.(transport.Prefetcher)
	for range s.size {
		s.begin()
	}
	s.w.pool.resize(s.size)
	s.fit() // the size may have been changed since the consumer was made
}

// begin adds a slot. The caller holds mu.
func (s *slots) begin() {
	ctx := s.ctx
	s.group.Go(func() { s.w.slot(ctx) })
}

// wait waits until all slots have ended, because there are no more jobs. No more begin, and what user code runs in ends
// with it.
func (s *slots) wait() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.group.Wait()
	s.w.runners.close()
}

// resize changes how many slots there are. Those too many end as they become free. The caller holds mu.
func (s *slots) resize(size int) {
	if s.ctx == nil || s.closed {
		s.size = size
		return
	}
	for ; s.size < size; s.size++ {
		select {
		case <-s.leave: // one stays that was to leave
		default:
			s.begin()
		}
	}
	for ; s.size > size; s.size-- {
		s.leave <- struct{}{} // which has room for all there can be
	}
	s.w.pool.resize(size)
}

// count is how many slots there are to be.
func (s *slots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// most is how many slots there may be: with autoscale, those included that come when they are needed.
func (s *slots) most() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit()
}

// limit is most. The caller holds mu.
func (s *slots) limit() int {
	if s.w.autoscaler != nil {
		return s.w.autoscaler.max
	}
	return s.size
}

// fit makes the window and the broker's prefetch fit the slots, or the most there may be. The caller holds mu.
func (s *slots) fit() {
	size, worthwhile := s.w.config.window(s.limit())
	s.w.window.resize(size, worthwhile)
	if s.prefetcher != nil {
		s.prefetcher.SetPrefetch(size)
	}
}

// change adds slots, or takes some away.
func (s *slots) change(by int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := s.size + by
	switch {
	case s.w.autoscaler != nil:
		return errors.New("the number of slots is adjusted by autoscale: change its range instead")
	case size < 1:
		return fmt.Errorf("%d slots cannot become less than 1", s.size)
	case size > maxConcurrency:
		return fmt.Errorf("%d slots cannot become more than %d", s.size, maxConcurrency)
	}
	s.resize(size)
	s.fit()
	return nil
}

// Grow adds n slots, at least 1; the messages held grow with them. With Autoscale it is an error. Celery's pool_grow.
func (w *Worker) Grow(n int) error {
	if n < 1 || n > maxConcurrency {
		return fmt.Errorf("grow by %d: it is not from 1 to %d", n, maxConcurrency)
	}
	return w.slots.change(n)
}

// Shrink takes n slots away, at least 1; the messages held shrink with them. Slots that are free leave at once, others
// when their task has ended. That less than one would stay is an error, and with Autoscale it always is. Celery's
// pool_shrink.
func (w *Worker) Shrink(n int) error {
	if n < 1 || n > maxConcurrency {
		return fmt.Errorf("shrink by %d: it is not from 1 to %d", n, maxConcurrency)
	}
	return w.slots.change(-n)
}

// slot is one goroutine that runs one job after the other. Jobs still waiting when ctx is done go back to their queue.
func (w *Worker) slot(ctx context.Context) {
	for {
		select {
		case <-w.slots.leave:
			return
		default:
		}
		select {
		case <-w.slots.leave:
			return
		case j, ok := <-w.ready:
			if !ok {
				return
			}
			if ctx.Err() != nil {
				w.reserved.remove(j)
				w.leave(j)
				continue
			}
			w.slots.busy.Add(1)
			if w.pool.reserve(ctx, j) {
				if !w.discarded(j) && (!j.delivery.Redelivered || w.resumes(ctx, j)) && w.startsFirst(j) {
					w.runJob(ctx, j)
				}
				w.pool.release(j)
			} else {
				w.leave(j)
			}
			w.reserved.remove(j)
			w.rooms.ended(j)
			w.slots.busy.Add(-1)
			if w.autoscaler != nil {
				w.autoscaler.jobs.Add(-1)
			}
		}
	}
}
