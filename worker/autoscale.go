package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// Autoscale are the bounds of the number of slots when it follows the work. It grows at once to what there is to do, and
// shrinks by what was not needed for Keepalive. The zero value is off. Celery's --autoscale=max,min.
type Autoscale struct {
	// Min is the least number of slots, and the first. Default 1.
	Min int
	// Max is the largest number of slots; 0 turns autoscale off. The messages held go by it.
	Max int
	// Keepalive is how long a slot stays that is not needed. Default: the environment's AUTOSCALE_KEEPALIVE in seconds,
	// as in Celery, else 30 s.
	Keepalive time.Duration
}

const (
	defaultKeepalive  = 30 * time.Second
	keepaliveVariable = "AUTOSCALE_KEEPALIVE"
)

// withDefaults validates a and fills in the defaults.
func (a Autoscale) withDefaults() (Autoscale, error) {
	if a == (Autoscale{}) {
		return a, nil
	}
	if a.Min == 0 {
		a.Min = 1
	}
	if text := os.Getenv(keepaliveVariable); a.Keepalive == 0 && text != "" {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || !(seconds >= 0.001 && seconds <= math.MaxInt32) {
			return a, fmt.Errorf("worker config: Autoscale: %s=%q is not a number of seconds from 0.001 on", keepaliveVariable, text)
		}
		a.Keepalive = time.Duration(seconds * float64(time.Second))
	}
	if a.Keepalive == 0 {
		a.Keepalive = defaultKeepalive
	}
	if a.Keepalive < 0 {
		return a, fmt.Errorf("worker config: Autoscale: Keepalive: %v is negative", a.Keepalive)
	}
	return a, a.check("worker config: Autoscale: ")
}

func (a Autoscale) check(where string) error {
	switch {
	case a.Max < 1 || a.Max > maxConcurrency:
		return fmt.Errorf("%sMax: %d is not from 1 to %d", where, a.Max, maxConcurrency)
	case a.Min < 1 || a.Min > a.Max:
		return fmt.Errorf("%sMin: %d is not from 1 to Max, %d", where, a.Min, a.Max)
	}
	return nil
}

// autoscaler makes the number of slots follow the work. slots.mu guards it, but for jobs.
type autoscaler struct {
	w         *Worker
	min, max  int
	keepalive time.Duration
	jobs      atomic.Int64 // that run or wait for a slot
	needed    time.Time    // when all slots were needed last
	peak      int          // the most that were needed since
}

// newAutoscaler is nil if autoscale is off.
func newAutoscaler(w *Worker) *autoscaler {
	if w.config.Autoscale.Max == 0 {
		return nil
	}
	c := w.config.Autoscale
	return &autoscaler{w: w, min: c.Min, max: c.Max, keepalive: c.Keepalive}
}

// jobComes is told before a job is handed to the slots.
func (a *autoscaler) jobComes() {
	a.jobs.Add(1)
	s := a.w.slots
	s.mu.Lock()
	before := s.size
	if want := min(int(a.jobs.Load()), a.max); want > before {
		s.resize(want)
	}
	a.look(time.Now())
	after := s.size
	s.mu.Unlock()
	a.logScaled(before, after)
}

// look notes how many slots are needed, and returns that. The caller holds slots.mu.
func (a *autoscaler) look(now time.Time) int {
	jobs := int(a.jobs.Load())
	if jobs >= a.w.slots.size {
		a.needed, a.peak = now, 0
	} else {
		a.peak = max(a.peak, jobs)
	}
	return jobs
}

// run is the actor that takes away slots which are not needed, until ctx is done.
func (a *autoscaler) run(ctx context.Context) {
	ticker := time.NewTicker(max(a.keepalive/10, 1))
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			a.shrink(now)
		case <-ctx.Done():
			return
		}
	}
}

// shrink takes away the slots that were not needed for the keepalive.
func (a *autoscaler) shrink(now time.Time) {
	s := a.w.slots
	s.mu.Lock()
	before := s.size
	jobs := a.look(now)
	if now.Sub(a.needed) >= a.keepalive {
		s.resize(min(max(a.peak, a.min), before))
		a.needed, a.peak = now, jobs
	}
	after := s.size
	s.mu.Unlock()
	a.logScaled(before, after)
}

// logScaled writes Celery's line about a change.
func (a *autoscaler) logScaled(before, after int) {
	switch {
	case after > before:
		a.w.log.Info(fmt.Sprintf("Scaling up %d processes.", after-before))
	case after < before:
		a.w.log.Info(fmt.Sprintf("Scaling down %d processes.", before-after))
	}
}

// SetAutoscale changes the range of a worker that was started with Autoscale; for others it is an error. The number of
// slots goes into the range at once. Celery's autoscale command.
func (w *Worker) SetAutoscale(maximum, minimum int) error {
	a, s := w.autoscaler, w.slots
	if a == nil {
		return errors.New("set autoscale: autoscale is not enabled")
	}
	if err := (Autoscale{Min: minimum, Max: maximum}).check("set autoscale: "); err != nil {
		return err
	}
	s.mu.Lock()
	a.min, a.max = minimum, maximum
	before := s.size
	s.resize(min(max(before, minimum), maximum))
	after := s.size
	s.fit()
	s.mu.Unlock()
	a.logScaled(before, after)
	return nil
}
