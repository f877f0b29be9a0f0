package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// ledger is a broker that writes down what it gets.
type ledger struct {
	transport.Transport // nil: a method not written here panics

	mu   sync.Mutex
	got  []*protocol.Message
	once int
	fail func(m *protocol.Message) error
	// tells: of a batch that fails in part it takes the rest, and says what it took, as RabbitMQ does.
	tells bool
}

func (l *ledger) Declare(context.Context, transport.Queue) error { return nil }

func (l *ledger) Publish(ctx context.Context, batch []transport.Publication) error {
	failed := map[int]error{}
	var first error
	for i, p := range batch {
		if l.fail != nil {
			if err := l.fail(p.Message); err != nil {
				failed[i], first = err, err
			}
		}
	}
	if errors.Is(first, context.DeadlineExceeded) {
		<-ctx.Done()
	}
	if first != nil && !l.tells {
		return &transport.PublishError{Err: first}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, p := range batch {
		if failed[i] == nil {
			l.got = append(l.got, p.Message)
		}
		if p.Once {
			l.once++
		}
	}
	if first != nil {
		return &transport.PublishError{Err: first, InDoubt: true, Failed: failed}
	}
	return nil
}

// moments are the moments that were sent of an entry, in the order of sending, as the messages tell them.
func (l *ledger) moments(t testing.TB, entry string) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, m := range l.got {
		name, moment := "", ""
		for _, h := range m.Headers.Extra {
			switch h.Name {
			case NameHeader:
				name = string(h.Value)
			case MomentHeader:
				moment = string(h.Value)
			}
		}
		if name == `"`+entry+`"` {
			at, err := protocol.ParseTime(moment[1 : len(moment)-1])
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, at.UTC().Format("02 15:04:05.999"))
		}
	}
	return all
}

func client(t testing.TB, tr transport.Transport) *task.Client {
	t.Helper()
	c, err := task.NewClient(tr, nil, task.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func entry(t testing.TB, name, text string) *Entry {
	t.Helper()
	e, err := ParseEntry(name, fromYAML(t, text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// quiet keeps what beats say for the test's failure.
func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// beating runs a beat for some time on the bubble's clock.
func beating(t testing.TB, span time.Duration, store Store, tr transport.Transport, now func() time.Time) *Beat {
	t.Helper()
	b, err := New(client(t, tr), store, Config{Logger: quiet(t)})
	if err != nil {
		t.Fatal(err)
	}
	if now != nil {
		b.now = now
	}
	if span > 24*time.Hour {
		b.config.MaxInterval = time.Hour
	}
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

func local(t testing.TB, c LocalConfig) *Local {
	t.Helper()
	c.Logger = quiet(t)
	l, err := NewLocal(c)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestBeatSendsWhenDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // begins at 2000-01-01 00:00 UTC
		l := &ledger{}
		b := beating(t, 2*time.Hour+time.Second, local(t, LocalConfig{Entries: []*Entry{
			entry(t, "half", `{task: a, schedule: 1800, args: [1], options: {queue: q}}`),
			entry(t, "cron", `{task: b, schedule: "0 * * * *"}`),
			entry(t, "off", `{task: c, schedule: 60, enabled: false}`),
			entry(t, "flow", `{task: {task: celery.chain, subtask_type: chain, kwargs: {tasks: [{task: x}, {task: y}]}}, schedule: 7200}`),
			entry(t, "first", `{task: d, schedule: 60, one_off: true}`),
			entry(t, "then", `{task: e, schedule: {at: 2000-01-01T00:10:00}}`),
			entry(t, "bound", `{task: f, schedule: 600, start: 2000-01-01T01:00:00, end: 2000-01-01T01:20:00}`),
		}}), l, nil)
		for name, want := range map[string][]string{
			"half": {"01 00:30:00", "01 01:00:00", "01 01:30:00", "01 02:00:00"}, "cron": {"01 01:00:00", "01 02:00:00"}, "off": nil,
			"flow": {"01 02:00:00"}, "first": {"01 00:01:00"}, "then": {"01 00:10:00"},
			"bound": {"01 01:00:00", "01 01:10:00", "01 01:20:00"},
		} {
			if got := l.moments(t, name); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		if l.once != len(l.got) {
			t.Errorf("%d of %d messages are to be there once", l.once, len(l.got))
		}
		if s := b.Stats(); s.Sent != int64(len(l.got)) || s.Leading || s.Failed+s.StoreErrors+s.BrokerErrors > 0 || s.Lateness > time.Millisecond {
			t.Errorf("%+v", s)
		}
		m := l.got[slices.IndexFunc(l.got, func(m *protocol.Message) bool { return m.Headers.Task == "a" })]
		if m.Properties.DeliveryInfo.RoutingKey != "q" || m.Headers.Expires != "2000-01-01T01:00:00+00:00" && m.Headers.Expires != "2000-01-01T01:00:00.000000+00:00" {
			t.Errorf("to %s, expires %s", m.Properties.DeliveryInfo.RoutingKey, m.Headers.Expires)
		}
	})
}

// What was missed is made up for as the entry says.
func TestMissed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		config := LocalConfig{StateFile: path, Entries: []*Entry{
			entry(t, "last", `{task: a, schedule: "*/10 * * * *"}`),
			entry(t, "none", `{task: a, schedule: "*/10 * * * *", missed: none}`),
			entry(t, "all", `{task: a, schedule: "*/10 * * * *", missed: all}`),
			entry(t, "two", `{task: a, schedule: 600, missed: 2}`),
			entry(t, "late", `{task: a, schedule: "0 * * * *", deadline: 300}`),
			entry(t, "soon", `{task: a, schedule: "0 * * * *", deadline: 3600}`),
		}}
		beating(t, time.Second, local(t, config), &ledger{}, nil)
		time.Sleep(time.Hour + 16*time.Minute) //nolint:forbidigo // the bubble's clock
		l := &ledger{}
		b := beating(t, time.Second, local(t, config), l, nil)
		if s := b.Stats(); s.Skipped != 4 || !s.Next.IsZero() { // last, none, two and late
			t.Errorf("%+v", s)
		}
		if metrics := string(b.Metrics()); !strings.Contains(metrics, "\ngelery_beat_skipped_total 4") {
			t.Errorf("the metrics:\n%s", metrics)
		}
		for name, want := range map[string][]string{
			"last": {"01 01:10:00"}, "none": nil, "two": {"01 01:00:00", "01 01:10:00"}, "late": nil, "soon": {"01 01:00:00"},
			"all": {"01 00:10:00", "01 00:20:00", "01 00:30:00", "01 00:40:00", "01 00:50:00", "01 01:00:00", "01 01:10:00"},
		} {
			if got := l.moments(t, name); !slices.Equal(got, want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	})
}

// A jitter moves each run, by less than to the next one, and always by the same.
func TestJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := entry(t, "e", `{task: a, schedule: 10, jitter: 1h}`)
		store := local(t, LocalConfig{Entries: []*Entry{e}})
		l := &ledger{}
		begun := time.Now()
		b := beating(t, 1000*time.Second, store, l, nil)
		got := l.moments(t, "e")
		if len(got) < 98 || b.Stats().Failed > 0 {
			t.Fatalf("%d runs of 99 or so", len(got))
		}
		delays := map[time.Duration]bool{}
		for i := range got {
			moment := begun.Add(time.Duration(i+1) * 10 * time.Second)
			if want := moment.UTC().Format("02 15:04:05.999"); got[i] != want {
				t.Fatalf("run %d is for %s, want %s", i, got[i], want)
			}
			d := e.delay(moment)
			if d != e.delay(moment) || d < 0 || d >= 10*time.Second {
				t.Errorf("delay of %v", d)
			}
			delays[d.Truncate(time.Second)] = true
		}
		if len(delays) < 8 {
			t.Errorf("all delays are of %v", delays)
		}
	})
}

// While the broker is away, or full, nothing is lost and nothing piles up; what one entry does wrong harms no other.
func TestBrokerAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]error{"no answer": context.DeadlineExceeded, "full": transport.ErrBrokerFull} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &ledger{}
				begun := time.Now()
				l.fail = func(m *protocol.Message) error {
					if m.Headers.Task == "bad" {
						return errors.New("no such queue")
					}
					if since := time.Since(begun); since > time.Minute && since < 10*time.Minute {
						return away
					}
					return nil
				}
				b := beating(t, 15*time.Minute+time.Second, local(t, LocalConfig{Entries: []*Entry{
					entry(t, "minutely", `{task: a, schedule: 60}`), entry(t, "wrong", `{task: bad, schedule: 90}`),
					entry(t, "every", `{task: a, schedule: 60, missed: all}`), entry(t, "soon", `{task: a, schedule: 60, missed: none}`),
					{Name: "panics", Schedule: Clocked{At: begun.Add(time.Minute)}, Make: func(time.Time) (task.Signature, error) { panic("oh") }},
				}}), l, nil)
				got := l.moments(t, "minutely")
				if len(got) < 6 || len(got) > 8 || got[0] != "01 00:01:00" || got[len(got)-1] != "01 00:15:00" || !slices.IsSorted(got) {
					t.Errorf("of each minute: %v", got)
				}
				every := l.moments(t, "every")
				if slices.Sort(every); len(every) != 15 || len(slices.Compact(every)) != 15 {
					t.Errorf("not each minute once: %v", every)
				}
				for _, moment := range l.moments(t, "soon") {
					if moment > "01 00:01:00" && moment < "01 00:10:00" {
						t.Errorf("what is not made up for was sent late: %s", moment)
					}
				}
				if s := b.Stats(); s.Failed < 5 || s.BrokerErrors == 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A beat that is stopped sends what waits for the broker, if that takes it soon.
func TestStopSendsWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		begun := time.Now()
		l.fail = func(*protocol.Message) error {
			if time.Since(begun) < 75*time.Second {
				return context.DeadlineExceeded
			}
			return nil
		}
		store := local(t, LocalConfig{Entries: []*Entry{entry(t, "e", `{task: a, schedule: 60}`)}})
		beating(t, 70*time.Second, store, l, nil)
		if got := l.moments(t, "e"); !slices.Equal(got, []string{"01 00:01:00"}) {
			t.Errorf("sent: %v", got)
		}
		if since := time.Since(begun); since > 90*time.Second {
			t.Errorf("it took until %v after the start", since)
		}
	})
}

// One queue that takes nothing holds up nothing but what is for it.
func TestStuckQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{tells: true}
		begun := time.Now()
		l.fail = func(m *protocol.Message) error {
			if m.Headers.Task == "stuck" && time.Since(begun) < 10*time.Minute {
				return context.DeadlineExceeded
			}
			return nil
		}
		beating(t, 11*time.Minute+time.Second, local(t, LocalConfig{Entries: []*Entry{
			entry(t, "good", `{task: a, schedule: 1, missed: all}`), entry(t, "stuck", `{task: stuck, schedule: 60}`),
		}}), l, nil)
		got := l.moments(t, "good")
		if n := len(got); n < 659 || n > 661 || !slices.IsSorted(got) || len(slices.Compact(got)) != n {
			t.Errorf("beside a queue that is stuck %d runs of 660 came: %v", n, got)
		}
		if got := l.moments(t, "stuck"); len(got) < 2 || len(got) > 4 || got[len(got)-1] != "01 00:11:00" {
			t.Errorf("when it takes messages again: %v", got)
		}
	})
}

// shifted is a wall clock that is set while the program runs.
func shifted(at, by time.Duration) func() time.Time {
	begun := time.Now()
	return func() time.Time {
		now := time.Now()
		if now.Sub(begun) >= at {
			return now.Add(by)
		}
		return now
	}
}

func TestClockIsSet(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"forward": 3 * time.Hour, "back": -3 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := &ledger{}
				beating(t, time.Hour, local(t, LocalConfig{Entries: []*Entry{entry(t, "e", `{task: a, schedule: "* * * * *"}`)}}), l, shifted(30*time.Minute+30*time.Second, by))
				got := l.moments(t, "e")
				if len(got) < 59 || len(got) > 61 { // neither a storm nor a stall
					t.Errorf("%d runs in an hour of minutes: %v", len(got), got)
				}
				ids := map[string]bool{}
				for _, m := range l.got {
					ids[m.Headers.ID] = true
				}
				if len(ids) != len(got) {
					t.Errorf("%d ids of %d runs", len(ids), len(got))
				}
			})
		})
	}
}

// A clock that is set back by less than clocks of machines may differ keeps nothing waiting.
func TestClockIsSetBackALittle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		beating(t, 2*time.Minute+time.Second, local(t, LocalConfig{Entries: []*Entry{entry(t, "e", `{task: a, schedule: 5}`)}}), l, shifted(time.Minute+time.Second, -45*time.Second))
		if n := len(l.moments(t, "e")); n < 23 || n > 25 {
			t.Errorf("%d runs in two minutes of one each five seconds", n)
		}
	})
}

// failing is a lease whose store fails at some of its steps, as when the process dies there.
type failing struct {
	Lease
	at string
}

func (f *failing) Mark(ctx context.Context, marks []Mark) error {
	if f.at == "before the mark" {
		return ErrNotLeading
	}
	if err := f.Lease.Mark(ctx, marks); err != nil || f.at != "after the mark" {
		return err
	}
	return ErrNotLeading
}

func (f *failing) Done(ctx context.Context, runs []Run) error {
	if f.at == "before it is reported" {
		return ErrNotLeading
	}
	return f.Lease.Done(ctx, runs)
}

// dying is a store of which the first lease is lost at some step.
type dying struct {
	Store
	at string
	n  int
}

func (d *dying) Lead(ctx context.Context) (Lease, error) {
	lease, err := d.Store.Lead(ctx)
	if d.n++; d.n > 1 || err != nil {
		return lease, err
	}
	return &failing{lease, d.at}, nil
}

// A beat that dies between any two steps loses no run; what it sends twice has one id.
func TestDeathBetweenSteps(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"before the mark", "after the mark", "before it is reported"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state")
			synctest.Test(t, func(t *testing.T) {
				l := &ledger{}
				store := &dying{Store: local(t, LocalConfig{StateFile: path, Entries: []*Entry{entry(t, "e", `{task: a, schedule: 60}`)}}), at: at}
				beating(t, 3*time.Minute+30*time.Second, store, l, nil)
				ids := map[string]bool{}
				for _, m := range l.got {
					ids[m.Headers.ID] = true
				}
				twice := 0
				if at == "before it is reported" {
					twice = 1
				}
				if len(ids) != 3 || len(l.got) != 3+twice {
					t.Errorf("%d ids in %d messages: %v", len(ids), len(l.got), l.moments(t, "e"))
				}
			})
		})
	}
}

// However short its interval is and whatever it makes up for, an entry is sent ten times a second at most; one that long misses none.
func TestFastest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		beating(t, 10*time.Second+50*time.Millisecond, local(t, LocalConfig{Entries: []*Entry{
			entry(t, "storm", `{task: a, schedule: 0.001, missed: all}`), entry(t, "odd", `{task: a, schedule: 0.037, missed: all}`),
			entry(t, "tenth", `{task: a, schedule: 0.1, missed: all}`),
		}}), l, nil)
		for _, name := range []string{"storm", "odd", "tenth"} {
			if n := len(l.moments(t, name)); n < 80 || n > 101 || name == "tenth" && n < 100 {
				t.Errorf("%s: %d runs in ten seconds", name, n)
			}
		}
	})
	e := entry(t, "e", `{task: a, schedule: 0.1, missed: all}`)
	begin := time.Date(2026, 1, 1, 0, 0, 0, 12345678, time.UTC)
	if m, _ := plan(Record{Entry: e, State: State{LastRunAt: begin}}, begin.Add(10*time.Second)); len(m.Runs) != 100 {
		t.Errorf("%d of 100 missed runs", len(m.Runs))
	}
	e = entry(t, "e", `{task: a, schedule: 0.001, missed: all}`)
	if m, _ := plan(Record{Entry: e, State: State{LastRunAt: begin}}, begin.Add(4*time.Second)); len(m.Runs) < 39 || len(m.Runs) > 41 {
		t.Errorf("%d runs for four seconds of milliseconds", len(m.Runs))
	}
}

// A beat tells when something is due next, while it leads.
func TestNextDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		b, err := New(client(t, &ledger{}), local(t, LocalConfig{Entries: []*Entry{entry(t, "e", `{task: a, schedule: 60}`)}}), Config{Logger: quiet(t)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = b.Run(ctx) })
		for i := range 3 {
			time.Sleep(30 * time.Second) //nolint:forbidigo // the bubble's clock
			synctest.Wait()
			if got, want := b.Stats().Next, begun.Add(time.Duration(1+(i+1)/2)*time.Minute); !got.Equal(want) {
				t.Errorf("next at %v, want %v", got, want)
			}
		}
		cancel()
		running.Wait()
		if next := b.Stats().Next; !next.IsZero() {
			t.Errorf("a beat that has ended says %v", next)
		}
	})
}

// refusing is a store whose lease refuses marks: others change entries between the look at them and their mark.
type refusing struct {
	Store
	Lease
	left    int  // so often
	pending bool // only until Pending is asked again
}

func (r *refusing) Close() error { return r.Store.Close() }

func (r *refusing) Lead(ctx context.Context) (lease Lease, err error) {
	r.Lease, err = r.Store.Lead(ctx)
	return r, err
}

func (r *refusing) Pending(ctx context.Context) ([]Run, error) {
	if r.pending && r.left == 0 {
		r.pending = false
	}
	return r.Lease.Pending(ctx)
}

func (r *refusing) Mark(ctx context.Context, marks []Mark) error {
	if r.left > 0 || r.pending {
		r.left = max(0, r.left-1)
		return ErrChanged
	}
	return r.Lease.Mark(ctx, marks)
}

// However often others have changed what is due, it is sent soon after: that they do is no failure of the store.
func TestChangedAgainAndAgain(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]*refusing{"twice": {left: 2}, "often": {left: 20}, "until it is asked what is pending": {left: 1, pending: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store.Store = local(t, LocalConfig{Entries: []*Entry{entry(t, "e", `{task: a, schedule: 60}`)}})
				l := &ledger{}
				b := beating(t, 63*time.Second, store, l, nil)
				if got := l.moments(t, "e"); !slices.Equal(got, []string{"01 00:01:00"}) {
					t.Errorf("sent within three seconds: %v", got)
				}
				if s := b.Stats(); s.StoreErrors != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}
