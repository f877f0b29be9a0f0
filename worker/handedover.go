package worker

import (
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered of tasks that rest in the broker.
const (
	maxHandedOver  = 1000
	fewHandedOver  = 32       // for which it is not worth while to look whose time has come
	maxHandedBytes = 16 << 10 // of a body
)

// handedOver is what the worker has given to the broker to keep until its eta, for inspect scheduled: with Celery whoever has
// received such a task holds it and lists it. The latest ones are remembered, each until its eta.
type handedOver struct {
	mu   sync.Mutex
	jobs []parked
	full int // when there are so many it is looked whose time has come: twice what was left the last time
}

// add is told before the broker is, so that a task is never in no list.
func (h *handedOver) add(x parked) {
	if len(x.job.delivery.Message.Body) > maxHandedBytes {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.jobs) >= h.full {
		h.forget(time.Now())
		h.full = min(max(2*len(h.jobs), fewHandedOver), maxHandedOver)
	}
	if len(h.jobs) == maxHandedOver {
		h.jobs = slices.Delete(h.jobs, 0, maxHandedOver/10) // not one by one
	}
	h.jobs = append(h.jobs, x)
}

// forget drops those whose time has come. The caller holds mu.
func (h *handedOver) forget(now time.Time) {
	h.jobs = slices.DeleteFunc(h.jobs, func(x parked) bool { return !now.Before(x.eta) })
}

// waiting lists those whose time has not come.
func (h *handedOver) waiting() []parked {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget(time.Now())
	return slices.Clone(h.jobs)
}
