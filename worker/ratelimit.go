package worker

import (
	"fmt"
	"time"

	"github.com/gelery/gelery/task"
)

// bucket is a rate limit: Celery's token bucket of one token, as a function of time.
type bucket struct {
	line
	interval time.Duration // 0: no limit
	next     time.Time     // when the next run may begin
}

// lateness is how much a run that had to wait may begin too late without delaying those after it: timers are late.
const lateness = 50 * time.Millisecond

func (b *bucket) wait(now time.Time) time.Duration {
	if b.interval == 0 {
		return 0
	}
	return max(0, b.next.Sub(now))
}

func (b *bucket) take(now time.Time) {
	if now.Sub(b.next) > lateness {
		b.next = now
	}
	b.next = b.next.Add(b.interval)
}

func (b *bucket) ended(time.Time, time.Duration) bool { return false }

func (b *bucket) pace(now time.Time) (next, each time.Duration) { return b.wait(now), b.interval }

func (b *bucket) trust(time.Time) time.Duration { return farthestTurn }

// set changes the rate. The next run is not before it would be at the new rate.
func (b *bucket) set(rate task.Rate) {
	b.next = b.next.Add(rate.Interval() - b.interval)
	b.interval = rate.Interval()
}

// SetRateLimit changes how often runs of a task may begin in this worker, from now on; "" or "0" ends the limit. It wins
// over the task's own limit. What rests in the broker until its turn comes back when that was to be, an hour later at most. The
// error is or wraps task.ErrNotRegistered when there is no such task; a text that is no rate is refused. With
// [Config].DisableRateLimits it changes nothing. Celery's remote control: rate_limit.
func (w *Worker) SetRateLimit(name, rate string) error {
	if w.tasks[name] == nil {
		return fmt.Errorf("set rate limit: task %q: %w", name, task.ErrNotRegistered)
	}
	r, err := task.ParseRate(rate)
	if err != nil {
		return fmt.Errorf("set rate limit: %w", err)
	}
	if w.config.DisableRateLimits {
		return nil
	}
	w.tasks[name].rate.Store(&rate)
	w.rooms.setRate(name, r)
	return nil
}

// rateLimit is the task's own limit, else the worker's default.
func (c *Config) rateLimit(d *task.Definition) (task.Rate, error) {
	switch {
	case c.DisableRateLimits:
		return 0, nil
	case d.Defaults.RateLimit != nil:
		r, err := task.ParseRate(*d.Defaults.RateLimit)
		if err != nil {
			err = fmt.Errorf("task %q: RateLimit: %w", d.Name, err)
		}
		return r, err
	}
	return task.ParseRate(c.DefaultRateLimit)
}
