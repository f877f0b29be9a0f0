//go:build unix

package interop

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/scheduler/redbeat"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// beatVariable makes of this test binary a beat; it is a beatProgram.
const beatVariable = "GELERY_INTEROP_BEAT"

// beatProgram says what a beat in a process of its own does.
type beatProgram struct {
	Store, Broker string
	LockTimeout   time.Duration
	Die           string // "marked": it kills itself after its first mark with runs; "sent": before it reports them as done
}

// beBeat is the program's main. It does not return.
func beBeat(text string) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := func() error {
		var p beatProgram
		if err := json.Unmarshal([]byte(text), &p); err != nil {
			return err
		}
		ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer cancel()
		store, err := redbeat.Open(ctx, redbeat.Config{URL: p.Store, LockTimeout: p.LockTimeout, Logger: log})
		if err != nil {
			return err
		}
		defer store.Close()
		client, err := beatClient(ctx, p.Broker)
		if err != nil {
			return err
		}
		beat, err := scheduler.New(client, dyingStore{store, p.Die}, scheduler.Config{Logger: log})
		if err != nil {
			return err
		}
		return errors.Join(beat.Run(ctx), client.Close(context.WithoutCancel(ctx)))
	}()
	if err != nil {
		log.Error(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

func beatClient(ctx context.Context, broker string) (*task.Client, error) {
	tr, err := transport.Open(ctx, broker, transport.Options{})
	if err != nil {
		return nil, err
	}
	return task.NewClient(tr, nil, task.Config{})
}

// dyingStore ends the process, as SIGKILL does, between two steps of a send.
type dyingStore struct {
	scheduler.Store
	at string
}

func (s dyingStore) Lead(ctx context.Context) (scheduler.Lease, error) {
	l, err := s.Store.Lead(ctx)
	return dyingLease{l, s.at}, err
}

type dyingLease struct {
	scheduler.Lease
	at string
}

func (l dyingLease) Mark(ctx context.Context, marks []scheduler.Mark) error {
	err := l.Lease.Mark(ctx, marks)
	if err == nil && l.at == "marked" && len(marks[0].Runs) > 0 {
		die()
	}
	return err
}

func (l dyingLease) Done(ctx context.Context, runs []scheduler.Run) error {
	if l.at == "sent" {
		die()
	}
	return l.Lease.Done(ctx, runs)
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// startBeat starts a beat of ours.
func startBeat(t testing.TB, p beatProgram) *Process {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(withoutCelery(os.Environ()), beatVariable+"="+string(text))
	return Start(t, "gelery-beat", cmd)
}

// fired is a message that a beat has sent.
type fired struct {
	id, entry string
	moment    string // of ours; RedBeat's have none
}

// beatLedger writes down what beats send to the queue celery.
type beatLedger struct {
	mu      sync.Mutex
	all     []fired
	changed chan struct{} // closed and replaced with each message
}

// listen begins a ledger. An entry is known by its first argument.
func listen(t testing.TB, broker string) *beatLedger {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := beatClient(ctx, broker)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := client.Transport().Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: "celery"}}, Prefetch: 100})
	if err != nil {
		t.Fatal(err)
	}
	l := &beatLedger{changed: make(chan struct{})}
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			deliveries, err := consumer.Receive(ctx, 100)
			if err != nil {
				return
			}
			settled := make([]transport.Settlement, len(deliveries))
			for i := range deliveries {
				l.note(deliveries[i].Message)
				settled[i] = transport.Settlement{Delivery: &deliveries[i], Verdict: transport.Ack}
			}
			if _, err := consumer.Settle(ctx, settled); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		ended.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(consumer.Close(ctx), client.Close(ctx), client.Transport().Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *beatLedger) note(m *protocol.Message) {
	f := fired{id: m.Headers.ID}
	var body []json.RawMessage
	var args []string
	if json.Unmarshal(m.Body, &body) == nil && len(body) > 0 && json.Unmarshal(body[0], &args) == nil && len(args) > 0 {
		f.entry = args[0]
	}
	for _, h := range m.Headers.Extra {
		if h.Name == scheduler.MomentHeader {
			f.moment = strings.Trim(string(h.Value), `"`)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, f)
	close(l.changed)
	l.changed = make(chan struct{})
}

// of are the messages of an entry, and a channel that is closed with the next message of any.
func (l *beatLedger) of(entry string) ([]fired, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []fired
	for _, f := range l.all {
		if f.entry == entry {
			all = append(all, f)
		}
	}
	return all, l.changed
}

// await waits until there are so many messages of an entry.
func (l *beatLedger) await(t testing.TB, entry string, n int) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		all, changed := l.of(entry)
		if len(all) >= n {
			return
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s: %d messages, not %d", entry, len(all), n)
		}
	}
}

// distinct are the ids among messages. Where a message may be there twice, on RabbitMQ, both have the same.
func distinct(all []fired) int {
	ids := map[string]bool{}
	for _, f := range all {
		ids[f.id] = true
	}
	return len(ids)
}

// openRedBeat opens the store of a schedule.
func openRedBeat(t testing.TB, c redbeat.Config) *redbeat.Store {
	t.Helper()
	c.Logger = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	s, err := redbeat.Open(within(t), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// putEntry puts an entry that tells its name as its argument.
func putEntry(t testing.TB, s scheduler.Store, name string, fields map[string]any) {
	t.Helper()
	definition := map[string]any{"task": "tick", "args": []any{name}, "keep_expired": true}
	for field, v := range fields {
		definition[field] = v
	}
	e, err := scheduler.ParseEntry(name, definition, nil)
	if err == nil {
		err = s.Put(within(t), e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// runs is how often an entry was marked.
func runs(t testing.TB, s scheduler.Store, name string) int {
	t.Helper()
	r, err := s.Entry(within(t), name)
	if err != nil {
		t.Fatal(err)
	}
	return int(r.State.TotalRunCount)
}

// wantSlots checks that our messages of an entry are one for each moment of an interval, from the first to the last.
func wantSlots(t testing.TB, all []fired, every time.Duration) {
	t.Helper()
	slots := map[string]string{}
	var first, last time.Time
	for _, f := range all {
		at, err := protocol.ParseTime(f.moment)
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		if id, has := slots[f.moment]; has && id != f.id {
			t.Errorf("%s of %s was sent twice", f.moment, f.entry)
		}
		slots[f.moment] = f.id
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	for at := first; !at.After(last); at = at.Add(every) {
		if slots[protocol.FormatTime(at)] == "" {
			t.Errorf("%v of %s was not sent", at, all[0].entry)
		}
		delete(slots, protocol.FormatTime(at))
	}
	if len(slots) > 0 {
		t.Errorf("%v are no moments of %s", slots, all[0].entry)
	}
}
