//go:build unix

package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

const (
	// recovery is within what a dead Go worker's tasks must be running again.
	recovery = 30 * time.Second
	// comeback is within what work must go on after the broker's return.
	comeback = 5 * time.Second
	// patient is how long producers wait for the broker: longer than any fault of theirs.
	patient = 60 * time.Second
	// slack is what the bounds on time are multiplied by: the machine has others to serve. What was measured is printed.
	slack = 2
)

// long chooses the long form of a fault, which is what the promises say: GELERY_FAULTS_LONG=1.
func long() bool { return os.Getenv("GELERY_FAULTS_LONG") == "1" }

// form returns the value for the form that runs.
func form[T any](brief, full T) T {
	if long() {
		return full
	}
	return brief
}

func milliseconds(n int) func(int) int { return func(int) int { return n } }

// scene is a queue on a broker, a client, the ledger of runs and the record of what each Send returned.
type scene struct {
	testing.TB
	setup  setup // what its workers are told
	client *task.Client
	ledger Ledger
	depth  func() (waiting, held int) // of the queue; -1 for both if the broker does not say
	rdb    *goredis.Client            // nil on RabbitMQ

	mu       sync.Mutex
	accepted map[string]bool
	doubtful map[string]bool
	refused  []error       // and in no doubt
	last     time.Time     // when a Send was accepted
	gap      time.Duration // the longest time without one since gaps was called
}

func newScene(t *testing.T, s setup, client string, options map[string]any) *scene {
	t.Helper()
	s.Slots, s.Prefetch, s.Ledger = slots, prefetch, filepath.Join(t.TempDir(), "ledger")
	config := task.Config{Broker: client, Queue: s.Queue, QueueType: s.QueueType, PublishTimeout: 2 * patient,
		TransportOptions: options, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	if s.Backend != "" {
		config.Backend = client
	}
	c, err := task.Dial(deadlineOf(t, 30*time.Second), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_ = c.Close(ctx)
	})
	return &scene{TB: t, setup: s, client: c, accepted: map[string]bool{}, doubtful: map[string]bool{}, ledger: Ledger{s.Ledger}}
}

// onRedis is a scene on a Redis, which keeps the results too. Its client goes by way of another URL, if one is given.
func onRedis(t *testing.T, url string, way ...string) *scene {
	t.Helper()
	s := newScene(t, setup{Broker: url, Backend: url, Queue: "celery"}, append(way, url)[0], nil)
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	s.watch(goredis.NewClient(o))
	return s
}

// watch makes a connection to Redis the one that the scene sees its queue by.
func (s *scene) watch(rdb *goredis.Client) {
	s.rdb = rdb
	s.Cleanup(func() { _ = rdb.Close() })
	s.depth = func() (waiting, held int) {
		list, hash := rdb.LLen(s.Context(), s.setup.Queue), rdb.HLen(s.Context(), "unacked")
		if list.Err() != nil || hash.Err() != nil {
			return -1, -1
		}
		return int(list.Val()), int(hash.Val())
	}
}

// onRabbitMQ is a scene on a queue of a node of RabbitMQ, which keeps no results. Kind is "classic" or "quorum".
func onRabbitMQ(t *testing.T, server *testservice.RabbitMQServer, url, queue, kind string) *scene {
	t.Helper()
	s := newScene(t, setup{Broker: url, Queue: queue, QueueType: kind}, url, nil)
	s.depth = func() (waiting, held int) { return server.Depth(queue) }
	return s
}

// onEach runs a fault on Redis and on a classic and a quorum queue of RabbitMQ.
func onEach(t *testing.T, f func(t *testing.T, s *scene)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		f(t, onRedis(t, testservice.Redis(t)))
	})
	for _, kind := range []string{"classic", "quorum"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			server := testservice.RabbitMQ(t)
			f(t, onRabbitMQ(t, server, server.URL, "faults", kind))
		})
	}
}

// broker is how the table calls the broker of a scene.
func (s *scene) broker() string {
	if s.rdb != nil {
		return "Redis"
	}
	return "RabbitMQ, " + s.setup.QueueType
}

// worker starts a worker process. Change alters what it is told.
func (s *scene) worker(change ...func(*setup)) *process {
	s.Helper()
	told := s.setup
	for _, f := range change {
		f(&told)
	}
	return told.start(s.TB)
}

// send sends one task and records what became of it when the call returns.
func (s *scene) send(ctx context.Context, ms int) (id string, err error) {
	id = protocol.NewID()
	_, err = note.Send(ctx, s.client, noteArgs{Milliseconds: ms}, task.ID(id))
	s.record(err, id)
	return id, err
}

// sendMany sends a batch.
func (s *scene) sendMany(n, ms int) {
	s.Helper()
	results, err := note.SendBatch(deadlineOf(s.TB, patient), s.client, slices.Repeat([]noteArgs{{Milliseconds: ms}}, n))
	if err != nil {
		s.Fatal(err)
	}
	for _, r := range results {
		s.record(nil, r.ID())
	}
}

// record keeps what a Send of a task returned.
func (s *scene) record(err error, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var publish *transport.PublishError
	switch {
	case err == nil:
		s.accepted[id] = true
		now := time.Now()
		if !s.last.IsZero() {
			s.gap = max(s.gap, now.Sub(s.last))
		}
		s.last = now
	case !errors.As(err, &publish):
		s.Errorf("send: %v; expected a PublishError", err)
	case publish.InDoubt:
		s.doubtful[id] = true
	default:
		s.refused = append(s.refused, err)
	}
}

// sent is what has been accepted by now.
func (s *scene) sent() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.accepted)
}

// stream sends tasks from several goroutines, each so many a second, until the returned function is called, which
// returns when their last call has.
func (s *scene) stream(goroutines, perSecond int, ms func(i int) int) (stop func()) {
	return s.streamWithin(patient, goroutines, perSecond, ms)
}

// streamWithin is stream with another deadline for each call.
func (s *scene) streamWithin(limit time.Duration, goroutines, perSecond int, ms func(i int) int) (stop func()) {
	ctx, cancel := context.WithCancel(s.Context())
	var producers sync.WaitGroup
	for range goroutines {
		producers.Go(func() {
			ticker := time.NewTicker(time.Second / time.Duration(perSecond))
			defer ticker.Stop()
			for i := 0; ; i++ {
				select {
				case <-ticker.C:
				case <-ctx.Done():
					return
				}
				sending, cancel := context.WithTimeout(s.Context(), limit)
				_, _ = s.send(sending, ms(i)) // recorded
				cancel()
			}
		})
	}
	return func() { cancel(); producers.Wait() }
}

// gaps begins to look for the longest time in which no Send was accepted.
func (s *scene) gaps() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap, s.last = 0, time.Now()
}

func (s *scene) longestGap() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.gap, time.Since(s.last))
}

// grown returns a channel on which the time is sent when the ledger has grown by one run.
func (s *scene) grown() <-chan time.Time {
	size := func() int64 {
		info, err := os.Stat(s.ledger.Path)
		if err != nil {
			return 0
		}
		return info.Size()
	}
	before := size()
	grown := make(chan time.Time, 1)
	go func() {
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for ctx := s.Context(); ctx.Err() == nil; <-ticker.C {
			if size() > before {
				grown <- time.Now()
				return
			}
		}
	}()
	return grown
}

// resumed waits until the ledger has grown by one run, and returns how long after the end of a fault that was.
func (s *scene) resumed(grown <-chan time.Time, end time.Time, limit time.Duration) time.Duration {
	s.Helper()
	select {
	case at := <-grown:
		return max(0, at.Sub(end))
	case <-time.After(slack * limit):
		s.Fatalf("nothing ran within %v of the fault's end", slack*limit)
		return 0
	}
}

// await waits until something is so.
func (s *scene) await(limit time.Duration, what string, yes func() bool) time.Duration {
	s.Helper()
	start := time.Now()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !yes() {
		if time.Since(start) > limit {
			s.Fatalf("not so within %v: %s", limit, what)
		}
		<-ticker.C
	}
	return time.Since(start)
}

// ran waits until so many tasks have begun.
func (s *scene) ran(n int) {
	s.Helper()
	s.await(recovery, fmt.Sprintf("%d tasks have begun", n), func() bool { return len(s.ledger.Counts(s)) >= n })
}

// settled waits until every accepted task has run or is set aside and the broker holds nothing, and returns how long
// that took.
func (s *scene) settled(limit time.Duration) time.Duration {
	s.Helper()
	start := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		a := Balance(s.accepted, s.ledger.Counts(s))
		s.mu.Unlock()
		waiting, held := -1, -1
		if a.Lost <= len(s.parked()) {
			if waiting, held = s.depth(); waiting == 0 && held == 0 {
				return time.Since(start)
			}
		}
		if time.Since(start) > limit {
			s.Fatalf("after %v: %v; %d wait and %d are held; missing %v", limit, a, waiting, held, a.Missing)
		}
		<-ticker.C
	}
}

// parked are the messages in quarantine, as text.
func (s *scene) parked() (list []string) {
	ctx, cancel := context.WithTimeout(s.Context(), time.Second)
	defer cancel()
	qs, err := s.client.Transport().(transport.Inspector).Quarantined(ctx, s.setup.Queue, 10_000)
	if err != nil {
		return nil
	}
	for _, q := range qs {
		list = append(list, string(q.Raw)+string(q.Properties))
	}
	return list
}

// numbered finds the number of a fault in the name of its test.
var numbered = regexp.MustCompile(`F[0-9]{2}`)

// outcome is what a test says of its fault.
type outcome struct {
	what            string
	faults          int
	extra           int           // the bound on extra runs
	parked          int           // so many messages must be set aside
	recovery, limit time.Duration // measured, and within what it must be; 0: not measured
}

// account checks the account and reports it: nothing lost, no ghosts, extra runs within the bound, work resumed in time.
// Call it when the workers have ended.
func (s *scene) account(o outcome) {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, doubtfulRan, parked := s.ledger.Counts(s), 0, s.parked()
	for id := range s.doubtful {
		if counts[id] > 0 {
			doubtfulRan++
			delete(counts, id)
		}
	}
	row := Row{Fault: cmp.Or(numbered.FindString(s.Name()), "-"), What: o.what + " (" + s.broker() + ")", Faults: o.faults, Account: Balance(s.accepted, counts),
		Parked: len(parked), Bound: o.extra, Recovery: o.recovery, Limit: o.limit}
	for id := range s.accepted {
		if counts[id] == 0 && slices.ContainsFunc(parked, func(text string) bool { return strings.Contains(text, id) }) {
			row.Lost--
		}
	}
	if err := row.Report(); err != nil {
		s.Error(err)
	}
	if len(s.doubtful)+len(s.refused) > 0 {
		s.Logf("in doubt %d, of them run %d; refused %d", len(s.doubtful), doubtfulRan, len(s.refused))
	}
	if row.Lost != 0 || row.Ghosts != 0 || row.Extra > o.extra || row.Parked != o.parked {
		s.Errorf("%v; missing %v", row, row.Missing)
	}
	if o.limit > 0 && o.recovery > slack*o.limit {
		s.Errorf("work went on after %v; expected %v", o.recovery, o.limit)
	}
	if s.rdb != nil {
		if n := s.rdb.ZCard(s.Context(), "unacked_index").Val(); n != 0 {
			s.Errorf("%d tags are left in unacked_index", n)
		}
	}
}

// has asks a worker what it has open: its goroutines and files.
func (s *scene) has() (goroutines, files int) {
	s.Helper()
	before := len(s.states())
	if _, err := state.Send(deadlineOf(s.TB, 30*time.Second), s.client, task.NoArgs{}); err != nil {
		s.Fatal(err)
	}
	s.await(30*time.Second, "the worker tells what it has open", func() bool { return len(s.states()) > before })
	states := s.states()
	if _, err := fmt.Sscan(states[len(states)-1], &goroutines, &files); err != nil {
		s.Fatal(err)
	}
	return goroutines, files
}

func (s *scene) states() []string {
	text, err := os.ReadFile(s.ledger.beside().Path)
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// stopped stops workers warm.
func stopped(t *testing.T, workers ...*process) {
	t.Helper()
	for _, w := range workers {
		if err := w.stop(); err != nil {
			t.Errorf("warm stop: %v: %s", err, w.log)
		}
	}
}

// logged counts a text in what the node has logged since it was made.
func logged(s *testservice.RabbitMQServer, text string) string {
	return s.Eval(fmt.Sprintf(`length(lists:append([begin {ok, B} = file:read_file(F), binary:matches(B, <<"%s">>) end ||
		F <- rabbit:log_locations(), filelib:is_regular(F)]))`, text))
}
