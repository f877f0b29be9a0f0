package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/internal/sharedlimit"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// Limit is a limit that all workers share which are told of it: of a task, or of all tasks from a queue. It is kept in Redis.
// While that is away the tasks under it wait, and others go on. Celery has nothing like it.
type Limit struct {
	// Task or Queue names what is limited: one of them, which this worker need not have.
	Task, Queue string
	// Rate is how many runs may begin, by all workers together, as [task.ParseRate] reads it. They are spread evenly. Default:
	// no limit.
	Rate string
	// Concurrency is how many runs may go on at once, in all workers together. The runs of a worker that dies count for
	// 10 s more. Default: no limit.
	Concurrency int
}

func (l *Limit) name() string {
	if l.Task != "" {
		return "task." + l.Task
	}
	return "queue." + l.Queue
}

// checkLimits refuses limits that make no sense.
func (c *Config) checkLimits() error {
	if _, err := task.ParseRate(c.DefaultRateLimit); err != nil {
		return fmt.Errorf("worker config: DefaultRateLimit: %w", err)
	}
	seen := map[string]bool{}
	for i, l := range c.Limits {
		rate, err := task.ParseRate(l.Rate)
		switch {
		case (l.Task == "") == (l.Queue == ""):
			err = fmt.Errorf("Task %q, Queue %q: one of them names what is limited", l.Task, l.Queue)
		case err != nil:
			err = fmt.Errorf("Rate: %w", err)
		case l.Concurrency < 0:
			err = fmt.Errorf("Concurrency: %d is negative", l.Concurrency)
		case rate == 0 && l.Concurrency == 0:
			err = errors.New("neither Rate nor Concurrency is set")
		case seen[l.name()]:
			err = fmt.Errorf("%s has a limit already", strings.Replace(l.name(), ".", " ", 1))
		}
		if err != nil {
			return fmt.Errorf("worker config: Limits[%d]: %w", i, err)
		}
		seen[l.name()] = true
	}
	return nil
}

// limitsRedis is where the shared limits are, and the prefix of their keys.
func (c *Config) limitsRedis(client task.Config) (redis *redisconn.Config, prefix string, err error) {
	url, options := c.LimitsURL, c.LimitsOptions
	if url == "" {
		switch {
		case isRedis(client.Broker):
			url, options = client.Broker, redisconn.Connection(client.TransportOptions)
			prefix, _ = client.TransportOptions["global_keyprefix"].(string)
		case isRedis(client.Backend):
			url, options = client.Backend, redisconn.Connection(client.BackendOptions)
			prefix, _ = client.BackendOptions["global_keyprefix"].(string)
		default:
			return nil, "", fmt.Errorf("worker config: LimitsURL: Limits are kept in Redis, and neither the broker (%s) nor the result backend (%s) is one; name one here",
				brokerurl.Redact(client.Broker), brokerurl.Redact(client.Backend))
		}
	}
	if redis, err = redisconn.Parse(url, options); err != nil {
		return nil, "", fmt.Errorf("worker config: LimitsURL: %w", err)
	}
	return redis, prefix, nil
}

func isRedis(url string) bool {
	scheme, _, _ := strings.Cut(url, "://")
	for _, s := range redisconn.Schemes {
		if s == scheme {
			return true
		}
	}
	return false
}

// sharedLimit is a limit with an actor that asks Redis for what the rooms need.
type sharedLimit interface {
	limit
	run(ctx context.Context)
	close(ctx context.Context)
}

// share makes the limits that this worker shares with others.
func (rs *rooms) share(c *Config, client task.Config) error {
	if len(c.Limits) == 0 {
		return nil
	}
	redis, prefix, err := c.limitsRedis(client)
	if err != nil {
		return err
	}
	rs.redis = func() *sharedlimit.Limits {
		return sharedlimit.New(redis, prefix, c.Hostname+"/"+protocol.NewID(), c.Logger.With("limits", redis.Redacted()))
	}
	for _, l := range c.Limits {
		rate, _ := task.ParseRate(l.Rate) // which has been checked
		base := shared{all: rs, name: l.name(), nudged: make(chan struct{}, 1)}
		if rate > 0 {
			rs.limitBy(&l, &sharedRate{shared: base, interval: max(rate.Interval(), 1)})
		}
		if l.Concurrency > 0 {
			rs.limitBy(&l, &sharedConcurrency{shared: base, concurrencyLimit: concurrencyLimit{most: l.Concurrency}})
		}
	}
	return nil
}

func (rs *rooms) limitBy(l *Limit, by sharedLimit) {
	rs.shared = append(rs.shared, by)
	if l.Task != "" {
		rs.limit(l.Task, by)
	} else {
		rs.queues[l.Queue] = append(rs.queues[l.Queue], by)
	}
}

// open starts the actors of the shared limits.
func (rs *rooms) open() {
	if len(rs.shared) == 0 {
		return
	}
	rs.limits = rs.redis()
	var ctx context.Context
	ctx, rs.end = context.WithCancel(context.Background())
	for _, l := range rs.shared {
		rs.actors.Go(func() { l.run(ctx) })
	}
}

// close ends them, and gives back what they have, so that others need not wait until it expires.
func (rs *rooms) close() {
	if rs.limits == nil {
		return
	}
	rs.end()
	rs.actors.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), returnGrace)
	defer cancel()
	for _, l := range rs.shared {
		l.close(ctx)
	}
	_ = rs.limits.Close()
}

// returnGrace bounds how long a stop waits for Redis to take back what the worker had of the limits.
const returnGrace = 2 * time.Second

// shared is what both kinds of shared limits have.
type shared struct {
	all    *rooms
	name   string
	nudged chan struct{} // capacity 1: the actor should look whether there is something to ask for
}

func (s *shared) nudge() {
	select {
	case s.nudged <- struct{}{}:
	default:
	}
}

// rest waits for a nudge, or until a time if there is one. False: ctx is done.
func (s *shared) rest(ctx context.Context, until time.Time) bool {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-s.nudged:
	case <-timer:
	case <-ctx.Done():
		return false
	}
	return true
}

// about is a time that is not the same in all workers.
func about(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) }

// What a worker reserves of a shared rate.
const (
	rateHorizon = time.Second            // turns are reserved so long ahead
	ratePause   = 100 * time.Millisecond // between two questions, when all turns are taken
	rateLate    = 250 * time.Millisecond // turns that were not used so long after their time are gone: no bursts
	rateMost    = 10_000
)

// sharedRate is a rate of all workers together. Turns are reserved by need: no more than there are jobs that wait, nor than
// this worker's share of a second.
type sharedRate struct {
	line
	shared
	interval time.Duration
	turns    []time.Time // reserved and not used, in order
	workers  int         // that asked lately
}

func (l *sharedRate) wait(now time.Time) time.Duration {
	for len(l.turns) > 0 && now.Sub(l.turns[0]) > rateLate {
		l.turns = l.turns[1:]
	}
	if len(l.turns) == 0 {
		l.nudge()
		return -1
	}
	return max(0, l.turns[0].Sub(now))
}

func (l *sharedRate) take(time.Time) {
	l.turns = l.turns[1:]
	l.nudge()
}

func (l *sharedRate) ended(time.Time, time.Duration) bool { return false }

func (l *sharedRate) pace(now time.Time) (next, each time.Duration) {
	each = times(l.interval, max(1, l.workers))
	if len(l.turns) > 0 {
		return max(0, l.turns[0].Sub(now)), each
	}
	return each, each
}

func (l *sharedRate) trust(time.Time) time.Duration { return farthestTurn }

// need is how many turns are worth a question.
func (l *sharedRate) need() int {
	l.all.mu.Lock()
	defer l.all.mu.Unlock()
	_, each := l.pace(time.Now())
	share := max(1, min(rateMost, int(rateHorizon/each)))
	want := min(l.waiting, share) - len(l.turns)
	if want < (share+3)/4 && len(l.turns) > 0 {
		return 0
	}
	return want
}

// run asks for turns as they are needed.
func (l *sharedRate) run(ctx context.Context) {
	var pause time.Time // before which it is no use to ask
	for {
		want := l.need()
		switch now := time.Now(); {
		case want <= 0:
			if !l.rest(ctx, time.Time{}) {
				return
			}
			continue
		case now.Before(pause):
			if !l.rest(ctx, pause) {
				return
			}
			continue
		}
		var got sharedlimit.Turns
		if !l.all.limits.Do(ctx, "reserve runs of "+l.name+", which wait", func(ctx context.Context) (err error) {
			got, err = l.all.limits.Reserve(ctx, l.name, l.interval, rateHorizon, want)
			return err
		}) {
			return
		}
		now := time.Now()
		l.all.mu.Lock()
		l.workers = got.Workers
		for i := range got.N {
			l.turns = append(l.turns, now.Add(got.First+times(l.interval, i)))
		}
		l.wake()
		l.all.mu.Unlock()
		if got.N < want {
			pause = now.Add(max(got.Again, about(ratePause)))
		}
	}
}

// close has nothing to give back: turns of the next second that nobody uses are lost.
func (l *sharedRate) close(context.Context) {}
