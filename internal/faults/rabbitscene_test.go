//go:build unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// A worker process of a rabbitScene is told its queue by these.
const (
	queueVariable     = "GELERY_FAULTS_QUEUE"
	queueTypeVariable = "GELERY_FAULTS_QUEUE_TYPE"
)

// patient is how long the producers of a rabbitScene wait for the broker: longer than any fault of theirs.
const patient = 60 * time.Second

// state is a task that notes beside the ledger what its process has open.
var state = task.Define[task.NoArgs, task.NoResult]("faults.state")

// resources counts goroutines and, on Linux, open files.
func resources() string {
	files, _ := os.ReadDir("/proc/self/fd")
	return fmt.Sprintf("%d %d", runtime.NumGoroutine(), len(files))
}

// beside is a second ledger, for what are no runs.
func (l Ledger) beside() Ledger { return Ledger{l.Path + ".state"} }

// long chooses the long form of a fault: a minute where the short one takes ten seconds. GELERY_FAULTS_LONG=1.
func long() bool { return os.Getenv("GELERY_FAULTS_LONG") == "1" }

// form returns the value for the form that runs.
func form[T any](brief, full T) T {
	if long() {
		return full
	}
	return brief
}

// rabbitScene is a queue on RabbitMQ, a client, the ledger of runs and the record of what each Send returned.
type rabbitScene struct {
	testing.TB
	url, queue, kind string
	client           *task.Client
	ledger           Ledger

	mu       sync.Mutex
	accepted map[string]bool
	doubtful map[string]bool
	refused  []error       // and in no doubt
	last     time.Time     // when a Send was accepted
	gap      time.Duration // the longest time without one since gaps was called
}

func newRabbitScene(t *testing.T, url, queue, kind string) *rabbitScene {
	t.Helper()
	dialing, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client, err := task.Dial(dialing, task.Config{Broker: url, Queue: queue, QueueType: kind, PublishTimeout: 2 * patient,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	})
	return &rabbitScene{TB: t, url: url, queue: queue, kind: kind, client: client, accepted: map[string]bool{},
		doubtful: map[string]bool{}, ledger: Ledger{filepath.Join(t.TempDir(), "ledger")}}
}

func (s *rabbitScene) worker() *process {
	s.Helper()
	return startWorker(s.TB, s.url, s.ledger, "env", queueVariable+"="+s.queue, queueTypeVariable+"="+s.kind)
}

// send sends one task and records what became of it when the call returns.
func (s *rabbitScene) send(ctx context.Context, ms int) (id string, err error) {
	id = protocol.NewID()
	_, err = note.Send(ctx, s.client, noteArgs{Milliseconds: ms}, task.ID(id))
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
	return id, err
}

// stream sends tasks from several goroutines, each so many a second, until the returned function is called, which
// returns when their last call has.
func (s *rabbitScene) stream(goroutines, perSecond int, ms func(i int) int) (stop func()) {
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
				sending, cancel := context.WithTimeout(s.Context(), patient)
				_, _ = s.send(sending, ms(i)) // recorded
				cancel()
			}
		})
	}
	return func() { cancel(); producers.Wait() }
}

// gaps begins to look for the longest time in which no Send was accepted.
func (s *rabbitScene) gaps() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap, s.last = 0, time.Now()
}

func (s *rabbitScene) longestGap() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.gap, time.Since(s.last))
}

// grown returns a channel on which the time is sent when the ledger has grown by one run.
func (s *rabbitScene) grown() <-chan time.Time {
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

// settled waits until every accepted task has run and the broker holds nothing, and returns how long that took.
func (s *rabbitScene) settled(server *testservice.RabbitMQServer, limit time.Duration) time.Duration {
	s.Helper()
	start := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		s.mu.Lock()
		a := Balance(s.accepted, s.ledger.Counts(s))
		s.mu.Unlock()
		ready, unacked := -1, -1
		if a.Lost == 0 {
			if ready, unacked = server.Depth(s.queue); ready == 0 && unacked == 0 {
				return time.Since(start)
			}
		}
		if time.Since(start) > limit {
			s.Fatalf("queue %s after %v: %v; %d wait and %d are unacked; missing %v", s.queue, limit, a, ready, unacked, a.Missing)
		}
		<-ticker.C
	}
}

// balance checks the account: nothing lost, no ghosts, extra runs within the bound. Call it when the workers have ended.
func (s *rabbitScene) balance(what string, faults, bound int) {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, doubtfulRan := s.ledger.Counts(s), 0
	for id := range s.doubtful {
		if counts[id] > 0 {
			doubtfulRan++
			delete(counts, id)
		}
	}
	a := Balance(s.accepted, counts)
	fmt.Fprintf(os.Stderr, "%s: %v, in doubt %d (of them run %d), refused %d, faults %d, bound on extra runs %d\n", what, a,
		len(s.doubtful), doubtfulRan, len(s.refused), faults, bound)
	if a.Lost != 0 || a.Ghosts != 0 || a.Extra > bound {
		s.Errorf("%s: %v; missing %v", what, a, a.Missing)
	}
}

// has asks a worker what it has open: its goroutines and files.
func (s *rabbitScene) has() (goroutines, files int) {
	s.Helper()
	before := len(s.states())
	if _, err := state.Send(deadlineOf(s.TB, 20*time.Second), s.client, task.NoArgs{}); err != nil {
		s.Fatal(err)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for ctx := deadlineOf(s.TB, 20*time.Second); ctx.Err() == nil; <-ticker.C {
		if states := s.states(); len(states) > before {
			if _, err := fmt.Sscan(states[len(states)-1], &goroutines, &files); err != nil {
				s.Fatal(err)
			}
			return goroutines, files
		}
	}
	s.Fatal("the worker did not tell what it has open within 20 s")
	return 0, 0
}

func (s *rabbitScene) states() []string {
	text, err := os.ReadFile(s.ledger.beside().Path)
	if err != nil && !os.IsNotExist(err) {
		s.Fatal(err)
	}
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

// logged counts a text in what the node has logged since it was made.
func logged(s *testservice.RabbitMQServer, text string) string {
	return s.Eval(fmt.Sprintf(`length(lists:append([begin {ok, B} = file:read_file(F), binary:matches(B, <<"%s">>) end ||
		F <- rabbit:log_locations(), filelib:is_regular(F)]))`, text))
}
