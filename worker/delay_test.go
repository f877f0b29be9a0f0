package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// keeper is the memory broker with a delay that never ends, or refuses, or hangs: what no real broker does when told to.
type keeper struct {
	transport.Transport
	worth time.Duration
	delay func(context.Context, *keeping, []transport.Delayed) ([]transport.Delayed, error)
}

type keeping struct {
	transport.Consumer
	k *keeper

	mu      sync.Mutex
	delayed []transport.Delayed
	calls   int
}

func (k *keeper) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	c, err := k.Transport.Consume(ctx, o)
	return &keeping{Consumer: c, k: k}, err
}

func (c *keeping) Delay(ctx context.Context, batch []transport.Delayed) ([]transport.Delayed, error) {
	c.mu.Lock()
	c.calls++
	c.mu.Unlock()
	return c.k.delay(ctx, c, batch)
}

func (c *keeping) Worth(*transport.Delivery) time.Duration { return max(c.k.worth, time.Second) }

// keep takes the messages and never gives them back.
func keep(ctx context.Context, c *keeping, batch []transport.Delayed) ([]transport.Delayed, error) {
	c.mu.Lock()
	c.delayed = append(c.delayed, batch...)
	c.mu.Unlock()
	for _, d := range batch {
		if lost, err := c.Settle(ctx, []transport.Settlement{{Delivery: d.Delivery}}); err != nil || lost > 0 {
			return batch, errors.Join(err, errors.New("not held"))
		}
	}
	return nil, nil
}

func refuseAll(_ context.Context, _ *keeping, batch []transport.Delayed) ([]transport.Delayed, error) {
	return batch, errors.New("no room")
}

// newKeeperSite is a site whose broker delays as it is told, and where "when" tells the time it ran.
func newKeeperSite(t *testing.T, log slog.Handler,
	delay func(context.Context, *keeping, []transport.Delayed) ([]transport.Delayed, error)) (*site, <-chan time.Time) {
	s := newSite(t)
	var err error
	s.client, err = task.NewClient(&keeper{Transport: s.client.Transport(), delay: delay}, s.client.Backend(), task.Config{Logger: slog.New(log)})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan time.Time, 200)
	s.mux.Func("when", func(context.Context) error { ran <- time.Now(); return nil })
	return s, ran
}

func (s *site) sendAt(eta time.Time) *task.Result[any] {
	s.Helper()
	r, err := s.client.Send(s.context(), "when", nil, nil, task.ETA(eta))
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *site) await(ran <-chan time.Time) time.Time {
	s.Helper()
	select {
	case at := <-ran:
		return at
	case <-s.context().Done():
		s.Fatal("the task did not run")
		return time.Time{}
	}
}

// left is what the broker has after the stop.
func (s *site) left() transport.Depth {
	s.Helper()
	d, err := s.client.Transport().(*keeper).Transport.(transport.Inspector).Depths(s.context(), []string{"celery"})
	if err != nil {
		s.Fatal(err)
	}
	return d[0]
}

// TestDelayedTasksLeaveTheWindow has a window of one, and a hundred tasks in front of it that are not due.
func TestDelayedTasksLeaveTheWindow(t *testing.T) {
	t.Parallel()
	s, ran := newKeeperSite(t, slog.NewTextHandler(t.Output(), nil), keep)
	const n = 100
	eta, far := time.Now().Add(time.Hour), time.Now().AddDate(20, 0, 0)
	for range n - 1 {
		s.sendAt(eta)
	}
	s.sendAt(far)
	s.send("when")
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
	s.await(ran)
	c := s.worker.consumer.(*keeping)
	listed, err := scheduledCommand(t.Context(), s.worker, arguments{})
	if all, _ := listed.([]any); len(all) != n || err != nil || all[n-1].(map[string]any)["eta"] != isoText(far.UTC(), true) {
		t.Errorf("inspect scheduled lists %d, %v; expected all %d, the latest last", len(all), err, n)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if d := s.left(); d.Messages != 0 || d.Unacked != 0 {
		t.Errorf("after the stop %+v; expected nothing here", d)
	}
	if s.worker.window.held != 0 || len(s.worker.parking.jobs) != 0 {
		t.Errorf("%d count in the window and %d are parked", s.worker.window.held, len(s.worker.parking.jobs))
	}
	if len(c.delayed) != n {
		t.Fatalf("%d were delayed, expected %d", len(c.delayed), n)
	}
	for _, d := range c.delayed[:n-1] {
		if d.After <= 59*time.Minute || d.After > time.Hour {
			t.Errorf("delayed for %v", d.After)
		}
	}
	if last := c.delayed[n-1].After; last != transport.MaxDelay {
		t.Errorf("what is due in 20 years is delayed for %v", last)
	}
}

// TestEarlyTasksAreParked: what is due within a second stays, so that it does not go round for ever.
func TestEarlyTasksAreParked(t *testing.T) {
	t.Parallel()
	s, ran := newKeeperSite(t, slog.NewTextHandler(t.Output(), nil), keep)
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
	eta := time.Now().Add(200 * time.Millisecond)
	s.sendAt(eta)
	if at := s.await(ran); at.Before(eta.Truncate(time.Microsecond)) {
		t.Errorf("ran %v early", eta.Sub(at))
	}
	if c := s.worker.consumer.(*keeping); c.calls != 0 {
		t.Errorf("the broker was asked %d times to delay", c.calls)
	}
}

// TestWorth: what is due before the way through the broker is worth it stays, as long as there is room.
func TestWorth(t *testing.T) {
	t.Parallel()
	broker := &keeping{k: &keeper{worth: time.Minute}}
	w := &Worker{consumer: broker, window: newWindow(8, 1)}
	w.parking = newParking(w)
	d := newDelaying(w)
	j := &job{delivery: &transport.Delivery{Message: &protocol.Message{}}}
	soon, late := time.Now().Add(30*time.Second), time.Now().Add(time.Hour)
	if d.take(j, soon) || !d.take(j, late) {
		t.Error("expected to hold what is due within a minute, and nothing else")
	}
	for range maxByChoice {
		w.parking.park(j, late)
	}
	if !d.take(j, soon) {
		t.Error("it was to be held beyond the room there is")
	}
}

// TestCongestedDelay: what comes while the way through the broker is slow is held, and offered later.
func TestCongestedDelay(t *testing.T) {
	t.Parallel()
	w := &Worker{consumer: &keeping{k: &keeper{worth: time.Minute}}, window: newWindow(8, 1)}
	w.parking = newParking(w)
	d := newDelaying(w)
	j := &job{delivery: &transport.Delivery{Message: &protocol.Message{}}}
	taken := 0
	for d.take(j, time.Now().Add(time.Hour)) {
		taken++
	}
	if taken != w.batch() || !d.behind.Load() {
		t.Errorf("%d wait for the broker, expected a batch of %d and that the others are offered later", taken, w.batch())
	}
}

// TestRefusedDelays: what the broker does not keep runs from here when it is due, and the log says so once.
func TestRefusedDelays(t *testing.T) {
	t.Parallel()
	warnings := &warningCounter{Handler: slog.NewTextHandler(t.Output(), nil)}
	s, ran := newKeeperSite(t, warnings, refuseAll)
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 1}) // so each is a batch of its own
	eta := time.Now().Add(1200 * time.Millisecond)
	for range 3 {
		s.sendAt(eta)
	}
	for range 3 {
		if at := s.await(ran); at.Before(eta.Truncate(time.Microsecond)) {
			t.Errorf("ran %v early", eta.Sub(at))
		}
	}
	if c := s.worker.consumer.(*keeping); c.calls == 0 {
		t.Error("the broker was never asked")
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if n := warnings.n.Load(); n != 1 {
		t.Errorf("%d warnings, expected one", n)
	}
	if d := s.left(); d.Messages != 0 || d.Unacked != 0 || s.worker.window.held != 0 {
		t.Errorf("after the stop %+v, %d in the window", d, s.worker.window.held)
	}
}

// TestDelaysAreOfferedAgain: what the broker did not keep, as during an alarm, it gets a little later; it is not held here
// until its eta. The call has a long limit: of one that is given up it is not known whether its messages come again.
func TestDelaysAreOfferedAgain(t *testing.T) {
	t.Parallel()
	var refusals atomic.Int32
	all := make(chan struct{})
	const n = 20
	s, ran := newKeeperSite(t, slog.NewTextHandler(t.Output(), nil),
		func(ctx context.Context, c *keeping, batch []transport.Delayed) ([]transport.Delayed, error) {
			if at, _ := ctx.Deadline(); time.Until(at) < delayPatience/2 {
				t.Errorf("delaying is to end in %v", time.Until(at))
			}
			if refusals.Add(1) == 1 {
				return batch, errors.New("an alarm")
			}
			kept, err := keep(ctx, c, batch)
			if len(c.delayed) == n {
				close(all)
			}
			return kept, err
		})
	for range n {
		s.sendAt(time.Now().Add(time.Hour))
	}
	s.send("when")
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
	s.await(ran)
	select {
	case <-all:
	case <-s.context().Done():
		t.Error("they are not all with the broker")
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
	if d := s.left(); d.Messages != 0 || d.Unacked != 0 || s.worker.window.held != 0 || len(s.worker.parking.jobs) != 0 || s.worker.parking.outside != 0 {
		t.Errorf("after the stop %+v, %d in the window, %d parked", d, s.worker.window.held, len(s.worker.parking.jobs))
	}
}

// TestSlowDelay: a broker that does not answer holds up what it was asked for, and nothing else.
func TestSlowDelay(t *testing.T) {
	t.Parallel()
	answer, all := make(chan struct{}), make(chan struct{})
	const n = 20
	s, ran := newKeeperSite(t, slog.NewTextHandler(t.Output(), nil),
		func(ctx context.Context, c *keeping, batch []transport.Delayed) ([]transport.Delayed, error) {
			<-answer
			kept, err := keep(ctx, c, batch)
			if len(c.delayed) == n {
				close(all)
			}
			return kept, err
		})
	for range n {
		s.sendAt(time.Now().Add(time.Hour))
	}
	s.send("when")
	s.start(Config{Concurrency: 1, PrefetchMultiplier: 8}) // of which a batch is the half
	s.await(ran)
	close(answer)
	select {
	case <-all:
	case <-s.context().Done():
		t.Error("they are not all with the broker")
	}
}

// TestTakeOut takes out what is not near, wherever it begins.
func TestTakeOut(t *testing.T) {
	t.Parallel()
	p := newParking(&Worker{window: newWindow(8, 1)})
	p.w.window.take(6)
	now := time.Now()
	worth := func(*transport.Delivery) time.Duration { return time.Second }
	for i := range 6 {
		p.park(&job{}, now.Add(time.Duration(i%2)*time.Hour)) // three are due
	}
	for want := 3; want > 0; want-- {
		if batch := p.takeOut(1, worth); len(batch) != 1 || !batch[0].eta.After(now) || p.w.window.held != 4-want || p.outside != 2+want {
			t.Fatalf("took out %d; %d in the window, %d outside", len(batch), p.w.window.held, p.outside)
		}
	}
	if batch := p.takeOut(9, worth); len(batch) != 0 || len(p.jobs) != 3 {
		t.Errorf("took out %d more of %d", len(batch), len(p.jobs))
	}
}

// TestUnansweredDelay has a broker that does not answer: what it may have is kept until its time, and not offered again.
func TestUnansweredDelay(t *testing.T) {
	t.Parallel()
	broker := &keeping{k: &keeper{delay: func(ctx context.Context, _ *keeping, batch []transport.Delayed) ([]transport.Delayed, error) {
		<-ctx.Done()
		return batch, ctx.Err()
	}}}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	w := &Worker{consumer: broker, window: newWindow(8, 1), running: t.Context(), log: log}
	w.parking = newParking(w)
	d := newDelaying(w)
	d.patience = time.Millisecond
	eta := time.Now().Add(time.Hour)
	w.window.take(1)
	d.handOver(t.Context(), []*parked{{job: &job{delivery: &transport.Delivery{}}, eta: eta}})
	if held := w.parking.scheduled(); len(held) != 1 || !held[0].eta.Equal(eta) {
		t.Errorf("parked: %v; expected the job with its eta", held)
	}
	if batch := w.parking.takeOut(9, broker.Worth); len(batch) != 0 {
		t.Error("it would be offered again")
	}
}

type warningCounter struct {
	slog.Handler
	n atomic.Int64
}

func (w *warningCounter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		w.n.Add(1)
	}
	return w.Handler.Handle(ctx, r)
}

// TestStopsWhileDelaying stops a worker that is giving a task back: a warm stop waits for the broker's answer, a cold one
// ends the call, and then the task is still held and goes back.
func TestStopsWhileDelaying(t *testing.T) {
	t.Parallel()
	for _, cold := range []bool{false, true} {
		t.Run(map[bool]string{false: "warm", true: "cold"}[cold], func(t *testing.T) {
			t.Parallel()
			begun, answer := make(chan struct{}), make(chan struct{})
			s, _ := newKeeperSite(t, slog.NewTextHandler(t.Output(), nil),
				func(ctx context.Context, c *keeping, batch []transport.Delayed) ([]transport.Delayed, error) {
					close(begun)
					select {
					case <-answer:
						return keep(ctx, c, batch)
					case <-ctx.Done():
						return batch, ctx.Err()
					}
				})
			s.start(Config{Concurrency: 1, PrefetchMultiplier: 1})
			r := s.sendAt(time.Now().Add(time.Hour))
			<-begun
			s.stop()
			want, left := error(nil), int64(0)
			if cold {
				s.worker.Terminate()
				want, left = ErrTerminated, 1
			} else {
				close(answer)
			}
			if err := s.end(); !errors.Is(err, want) {
				t.Errorf("the stop returned %v", err)
			}
			if d := s.left(); d.Messages != left || d.Unacked != 0 {
				t.Errorf("after the stop %+v; expected %d back", d, left)
			}
			if state, err := r.State(s.context()); err != nil || state != protocol.Pending {
				t.Errorf("the task is %s, %v", state, err)
			}
		})
	}
}

// TestHandedOver: what the broker keeps is remembered until its time, the latest of it, and nothing large.
func TestHandedOver(t *testing.T) {
	t.Parallel()
	var h handedOver
	add := func(eta time.Time, body int) *job {
		j := &job{delivery: &transport.Delivery{Message: &protocol.Message{Body: make([]byte, body)}}}
		h.add(parked{job: j, eta: eta})
		return j
	}
	far := time.Now().Add(time.Hour)
	add(time.Now().Add(-time.Second), 1)
	add(far, maxHandedBytes+1)
	if n := len(h.waiting()); n != 0 {
		t.Errorf("%d are remembered: one is due, and one is too large", n)
	}
	for range maxHandedOver {
		add(time.Now().Add(-time.Second), 1)
	}
	if n := len(h.jobs); n > fewHandedOver {
		t.Errorf("%d that are due take memory; expected at most %d", n, fewHandedOver)
	}
	var last *job
	for range 3 * maxHandedOver {
		last = add(far, 1)
	}
	if all := h.waiting(); len(all) > maxHandedOver || len(all) < maxHandedOver*9/10 || all[len(all)-1].job != last {
		t.Errorf("%d are remembered, expected the latest %d", len(all), maxHandedOver)
	}
}
