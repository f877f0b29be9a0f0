package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// DefaultMaxInterval is that of a [Config].
const DefaultMaxInterval = time.Second

// Config says how a beat works. The zero value is right for most.
type Config struct {
	// MaxInterval is how often the store is asked at least, for what others changed in it. 0: 1 s. Celery's
	// beat_max_loop_interval, whose default is 300.
	MaxInterval time.Duration
	// OnSent is told of each run that the broker has, and how late it has it. It must return soon.
	OnSent func(r Run, late time.Duration)
	// CronDeadline is the Deadline of entries with a crontab, or a line of cron, that have none: Celery's beat_cron_starting_deadline.
	CronDeadline time.Duration
	// KeepExpired is so for all entries, as in Celery.
	KeepExpired bool
	Logger      *slog.Logger // nil: slog's default
}

// apply is the entry with what the configuration adds to it.
func (c *Config) apply(e *Entry) *Entry {
	deadline := c.CronDeadline
	switch e.Schedule.(type) {
	case *Crontab, *CronLine:
	default:
		deadline = 0
	}
	if e.Deadline != 0 || e.Missed == MissedNone {
		deadline = 0
	}
	if deadline == 0 && (!c.KeepExpired || e.KeepExpired) {
		return e
	}
	with := *e
	with.Deadline, with.KeepExpired = max(deadline, e.Deadline), c.KeepExpired || e.KeepExpired
	return &with
}

// Beat sends the tasks of a store when they are due: Celery's beat. Any number of them may run, on any machines; of those whose
// stores know each other one leads and the others stand by.
type Beat struct {
	client *task.Client
	store  Store
	config Config
	log    *slog.Logger
	now    func() time.Time // the wall clock
	stats  stats
}

// batch is how many due entries are dealt with at once.
const batch = 250

// sendTimeout is how long the loop waits for the broker. What it has not taken then holds up nothing else; on RabbitMQ what is
// only not confirmed yet may be there twice by it.
const sendTimeout = 5 * time.Second

// retryDelay is the first pause after a failure of store or broker; it doubles up to retryMost.
const (
	retryDelay = 100 * time.Millisecond
	retryMost  = 10 * time.Second
)

// mostChanges is how often in a row the store is asked again at once because others have changed entries meanwhile. Then there is a
// pause of retryDelay between, which does not grow: the store does what it should.
const mostChanges = 5

// New makes a beat that sends by a client what a store says.
func New(client *task.Client, store Store, c Config) (*Beat, error) {
	if c.MaxInterval < 0 || c.CronDeadline < 0 {
		return nil, errors.New("beat config: MaxInterval or CronDeadline is negative")
	}
	if c.MaxInterval == 0 {
		c.MaxInterval = DefaultMaxInterval
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return &Beat{client: client, store: store, config: c, log: c.Logger, now: time.Now}, nil
}

// Run sends until ctx is done; then it gives its lease back and returns nil. It outlasts whatever happens to store and
// broker: without its lease it sends nothing and waits to lead again.
func (b *Beat) Run(ctx context.Context) error {
	b.log.Info("beat: Starting...")
	b.stats.running.Store(true)
	defer b.stats.running.Store(false)
	defer b.stats.leading.Store(false)
	for tries := 0; ctx.Err() == nil; {
		lease, err := b.store.Lead(ctx)
		if err != nil {
			if ctx.Err() == nil {
				b.log.Error("beat: the store cannot be reached", "error", err)
			}
			tries = pause(ctx, tries)
			continue
		}
		tries = 0
		b.log.Info("beat: leading")
		b.stats.leading.Store(true)
		err = b.lead(ctx, lease)
		b.stats.leading.Store(false)
		if ctx.Err() == nil {
			b.log.Warn("beat: no longer leading", "reason", err)
		}
		release(ctx, lease, b.log)
	}
	return nil
}

// release gives a lease back, also when ctx is done.
func release(ctx context.Context, lease Lease, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := lease.Release(ctx); err != nil && !errors.Is(err, ErrNotLeading) {
		log.Warn("beat: the lease could not be given back; it ends by itself", "error", err)
	}
}

// pause waits after a failure, longer each time, and returns how many there were.
func pause(ctx context.Context, tries int) int {
	timer := time.NewTimer(min(retryDelay<<min(tries, 10), retryMost))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return tries + 1
}

// lead sends what is due until the lease is lost or ctx is done.
func (b *Beat) lead(ctx context.Context, lease Lease) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := make(chan struct{})
	defer close(stop)
	go func() { // owned by this call
		select {
		case <-lease.Lost():
			cancel(ErrNotLeading)
		case <-stop:
		}
	}()

	unsent := newRetrier(b, lease)
	var retrying sync.WaitGroup
	retrying.Go(func() { unsent.run(ctx) })
	defer func() { cancel(nil); retrying.Wait() }()

	clock := newWallClock(b.now)
	defer b.stats.expects(time.Time{})
	defer b.uncount()
	begun, skew := false, Skew
	for tries, changes := 0, 0; ctx.Err() == nil; {
		var next time.Time
		var err error
		by := clock.jumped()
		if by < 0 {
			skew = 0
		}
		if by != 0 || !begun {
			err = b.begin(ctx, lease, unsent, skew)
		}
		if err == nil {
			next, err = b.tick(ctx, lease, unsent)
		}
		if errors.Is(err, ErrNotLeading) {
			return err
		}
		// Else nobody knows whether what was marked is marked. Each second refusal in a row is followed by Pending, too: a store may look
		// at its entries only then.
		begun = err == nil || errors.Is(err, errUnmarked) && changes%2 == 0
		switch {
		case err == nil:
			tries, changes, skew = 0, 0, Skew
			b.stats.expects(next)
			b.sleep(ctx, lease, next)
		case errors.Is(err, ErrChanged):
			if changes++; changes == mostChanges+1 {
				b.log.Warn("beat: entries are changed again and again between the look at them and their mark; they are sent when they can be marked")
			}
			if changes > mostChanges {
				pause(ctx, 0)
			}
		case ctx.Err() == nil:
			b.stats.storeErrors.Add(1)
			b.log.Error("beat: the store fails", "error", err)
			tries = pause(ctx, tries)
		}
	}
	return context.Cause(ctx)
}

// begin does what the beat before has left, or this one before the store failed it, and heeds the clock.
func (b *Beat) begin(ctx context.Context, lease Lease, unsent *retrier, skew time.Duration) error {
	n, err := lease.Rewind(ctx, b.now(), skew)
	if err != nil {
		return err
	}
	if n > 0 {
		b.log.Warn("beat: entries have run later than now, so the clock was set back; they go on from now", "entries", n)
	}
	left, err := lease.Pending(ctx)
	if err != nil || len(left) == 0 {
		return err
	}
	b.log.Warn("beat: sending again what was marked and perhaps not sent", "runs", len(left))
	for _, r := range left {
		unsent.add(r, 0)
	}
	return nil
}

// errUnmarked is ErrChanged of a Mark, which has noted nothing.
var errUnmarked = fmt.Errorf("mark: %w", ErrChanged)

// tick deals with one batch of what is due, and returns when to look again.
func (b *Beat) tick(ctx context.Context, lease Lease, unsent *retrier) (time.Time, error) {
	now := b.now()
	due, next, err := lease.Due(ctx, now, batch)
	b.stats.looked.Store(now.UnixNano())
	if err == nil {
		b.count(ctx, lease, now)
	}
	if err != nil || len(due) == 0 {
		return next, err
	}
	marks := make([]Mark, 0, len(due))
	var runs []Run
	for _, r := range due {
		entry := r.Entry
		r.Entry = b.config.apply(entry)
		m, errs := plan(r, now)
		m.Entry = entry // by which the store knows it
		for _, err := range errs {
			b.stats.failed.Add(1)
			b.log.Error("beat: a run cannot be made", "error", err)
		}
		marks = append(marks, m)
		runs = append(runs, m.Runs...)
	}
	if err := lease.Mark(ctx, marks); errors.Is(err, ErrChanged) {
		return next, errUnmarked
	} else if err != nil {
		return next, err
	}
	for _, m := range marks {
		if n := len(m.leftOut); n > 0 {
			b.stats.skipped.Add(1)
			b.log.Info("beat: what was missed is left out, as the entry's missed or deadline says", "entry", m.Entry.Name, "latest", protocol.FormatTime(m.leftOut[n-1].UTC()))
		}
	}
	if err := b.send(ctx, lease, unsent, runs); err != nil {
		return next, err
	}
	if len(due) == batch { // there may be more
		return now, nil
	}
	for _, m := range marks {
		if !m.Pause && !m.Next.IsZero() && (next.IsZero() || m.Next.Before(next)) {
			next = m.Next
		}
	}
	return next, nil
}

// stopGrace is how long a beat that is stopped may take to send what it has marked; the rest is sent by the next beat.
const stopGrace = 15 * time.Second

// outlasting is ctx, but goes on for stopGrace when the beat is stopped; not when it no longer leads.
func outlasting(ctx context.Context, lease Lease) (context.Context, func()) {
	lasting, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unwatch := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(stopGrace)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(context.Canceled)
		case <-lease.Lost():
			cancel(ErrNotLeading)
		case <-lasting.Done():
		}
	})
	return lasting, func() { unwatch(); cancel(nil) }
}

// send hands runs to the broker and reports them as done. What it does not take now is left to the retrier.
func (b *Beat) send(ctx context.Context, lease Lease, unsent *retrier, runs []Run) error {
	fresh := make([]Run, 0, len(runs))
	for _, r := range runs {
		if unsent.has(r.Entry) { // behind what is before it
			unsent.add(r, 0)
		} else {
			fresh = append(fresh, r)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	ctx, cancel := outlasting(ctx, lease)
	defer cancel()
	done, away, err := b.try(ctx, fresh, sendTimeout)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if len(away) > 0 {
		b.log.Error("beat: the broker, or a backend that a chord needs, does not take what is due; it is tried again", "runs", len(away), "entry", away[0].Entry, "error", err)
		for _, r := range away {
			unsent.add(r, 1)
		}
	}
	return retry(ctx, b.log, func() error { return lease.Done(ctx, done) })
}

// try sends runs. done are with the broker or can never be; away those that may be sent later, err why.
func (b *Beat) try(ctx context.Context, runs []Run, timeout time.Duration) (done, away []Run, err error) {
	sigs := make([]task.Signature, len(runs))
	for i, r := range runs {
		sigs[i] = r.Task
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	errs := b.client.ApplyOnce(ctx, sigs)
	now := b.now()
	for i, r := range runs {
		switch e := errs[i]; {
		case e == nil:
			b.sent(ctx, r, now)
			done = append(done, r)
		case brokerAway(e):
			away, err = append(away, r), e
		default:
			b.stats.failed.Add(1)
			b.log.Error("beat: a run cannot be sent, and is left out", "entry", r.Entry, "id", r.ID, "error", e)
			done = append(done, r)
		}
	}
	if len(away) > 0 {
		b.stats.brokerErrors.Add(1)
	}
	return done, away, err
}

// sent tells that the broker has a run.
func (b *Beat) sent(ctx context.Context, r Run, now time.Time) {
	late := now.Sub(r.due())
	if b.stats.sent(late); b.config.OnSent != nil {
		b.config.OnSent(r, late)
	}
	if b.log.Enabled(ctx, slog.LevelInfo) {
		b.log.Info(fmt.Sprintf("Scheduler: Sending due task %s (%s)", r.Entry, r.Task.Name()), "id", r.ID, "moment", protocol.FormatTime(r.Moment))
	}
}

// retry does again what the store failed to do: what is sent must be reported, or it is sent again.
func retry(ctx context.Context, log *slog.Logger, do func() error) error {
	for tries := 0; ; {
		err := do()
		if err == nil || errors.Is(err, ErrNotLeading) || ctx.Err() != nil {
			return err
		}
		log.Error("beat: the store fails", "error", err)
		tries = pause(ctx, tries)
	}
}

// brokerAway tells errors that end with time from those of a task, which do not.
func brokerAway(err error) bool {
	if p, ok := errors.AsType[*transport.PublishError](err); ok && p.InDoubt {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, transport.ErrBrokerFull)
}

// sleep waits until next, at most MaxInterval, or until there is something new.
func (b *Beat) sleep(ctx context.Context, lease Lease, next time.Time) {
	wait := b.config.MaxInterval
	if !next.IsZero() {
		wait = min(wait, next.Sub(b.now()))
	}
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-lease.Changed():
	case <-ctx.Done():
	}
}
