package monitor

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
)

const (
	// DefaultMaxTasks and DefaultMaxWorkers are Celery's, max_tasks_in_memory and max_workers_in_memory.
	DefaultMaxTasks   = 10_000
	DefaultMaxWorkers = 5_000
	// DefaultMaxText is how much of each text of a task is kept.
	DefaultMaxText = 1024
	// DefaultMaxBytes is what the tasks take together.
	DefaultMaxBytes = 128 << 20
	// DefaultOfflineExpires is how long a worker that is not there any more is remembered.
	DefaultOfflineExpires = 24 * time.Hour

	// maxTypes bounds the types of tasks that are counted each for itself.
	maxTypes = 10_000
	// sweepInterval is how often workers that are not there are looked for.
	sweepInterval = time.Minute
)

// StateConfig bounds a State. The zero value has the defaults.
type StateConfig struct {
	// MaxTasks is how many tasks are remembered, 10,000 by default. The one that was not heard of for the longest time is
	// forgotten first, as it is when the tasks take more than MaxBytes.
	MaxTasks int
	// MaxBytes is about what the remembered tasks may take in memory, 128 MiB by default: all that is kept of them, a name that
	// several have (of a type, queue, worker, client or state) once. The task heard of last stays in any case. Beside it workers
	// take up to 1.5 kB each, and the counts of task types 4 MB.
	MaxBytes int
	// MaxText is how many bytes of each of a task's arguments, result and exception are kept, 1024 by default; of a
	// traceback the last four times as many.
	MaxText int
	// MaxWorkers is how many workers are remembered, 5,000 by default.
	MaxWorkers int
	// OfflineExpires is how long a worker is remembered that has gone or fallen silent, a day by default.
	OfflineExpires time.Duration
}

// State is what events tell of a cluster: Celery's celery.events.state.State. It bears events that come out of order, twice
// or not at all, and anything else. It may be used concurrently. Its memory is bounded.
type State struct {
	config StateConfig
	now    func() time.Time

	mu        sync.RWMutex
	tasks     recent[taskRecord]
	bytes     int   // of the tasks, without their names
	names     names // of tasks
	states    names // of tasks, each user a task
	workers   recent[workerRecord]
	byType    map[string]*Counts
	events    int64
	ignored   int64
	forgotten int64
	swept     time.Time
}

// NewState makes an empty State. A negative bound is an error.
func NewState(c StateConfig) (*State, error) {
	for _, b := range []struct {
		name  string
		n     *int
		usual int
	}{{"MaxTasks", &c.MaxTasks, DefaultMaxTasks}, {"MaxBytes", &c.MaxBytes, DefaultMaxBytes}, {"MaxText", &c.MaxText, DefaultMaxText},
		{"MaxWorkers", &c.MaxWorkers, DefaultMaxWorkers}} {
		if *b.n < 0 {
			return nil, fmt.Errorf("monitor: %s %d is negative", b.name, *b.n)
		}
		*b.n = cmp.Or(*b.n, b.usual)
	}
	if c.OfflineExpires < 0 {
		return nil, fmt.Errorf("monitor: OfflineExpires %v is negative", c.OfflineExpires)
	}
	c.OfflineExpires = cmp.Or(c.OfflineExpires, DefaultOfflineExpires)
	return &State{config: c, now: time.Now, tasks: newRecent[taskRecord](), workers: newRecent[workerRecord](),
		names: newNames(), states: newNames(knownStates...), byType: map[string]*Counts{}}, nil
}

// Apply takes in events, in their order. It is what Receiver.Capture calls. It keeps nothing of them.
func (s *State) Apply(events []protocol.Event) {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		s.apply(&events[i], now)
	}
	if now.Sub(s.swept) >= sweepInterval {
		s.swept = now
		s.sweep(now)
	}
}

func (s *State) apply(e *protocol.Event, now time.Time) {
	s.events++
	switch group, _, _ := strings.Cut(e.Type, "-"); {
	case e.Hostname == "" || len(e.Hostname) > maxName || len(e.Type) > maxName:
		s.ignored++
	case group == "worker":
		w := s.worker(e.Hostname)
		w.merge(s, e, now)
	case group == "task":
		s.applyTask(e, now)
	default:
		s.ignored++ // a group of the program's own
	}
}

func (s *State) applyTask(e *protocol.Event, now time.Time) {
	id := e.Text("uuid")
	if id == "" || len(id) > maxName {
		s.ignored++
		return
	}
	t, key, isNew := s.tasks.touch(id)
	if isNew {
		t.id = key
	}
	advances := t.advances(stateOf(e.Type), e)
	var w *workerRecord
	if e.Type == protocol.TaskSent {
		s.names.set(&t.client, e.Hostname)
	} else {
		w = s.worker(e.Hostname)
		w.hears(e, now)
		if advances || t.worker == nil {
			s.names.set(&t.worker, w.hostname)
		}
	}
	if t.merge(s, e, advances) {
		s.countsOf(t.name.String()).add(e)
		if w != nil {
			w.counts.add(e)
		}
	}
	size := t.measure()
	s.bytes += size - t.size
	t.size = size
	for last := s.tasks.last(); last != t && (s.tasks.len() > s.config.MaxTasks || s.memory() > s.config.MaxBytes); last = s.tasks.last() {
		s.forget(last)
		s.forgotten++
	}
}

// memory is about what the tasks take, in bytes.
func (s *State) memory() int { return s.bytes + s.names.bytes + s.states.bytes }

// forget lets go of a task.
func (s *State) forget(t *taskRecord) {
	for _, n := range []*name{t.name, t.queue, t.exchange, t.routingKey, t.client, t.worker} {
		s.names.release(n)
	}
	s.states.release(t.state)
	s.bytes -= t.size
	s.tasks.remove(t.id)
}

// worker is the record of a node name, made if need be, and the newest now.
func (s *State) worker(hostname string) *workerRecord {
	w, key, isNew := s.workers.touch(hostname)
	if isNew {
		w.hostname, w.freq = key, defaultFreq
		if s.workers.len() > s.config.MaxWorkers {
			s.workers.remove(s.workers.last().hostname)
		}
	}
	return w
}

// sweep forgets the workers that are not there for too long. Their tasks keep their names.
func (s *State) sweep(now time.Time) {
	for w := range s.workers.oldestFirst() {
		if !w.alive(now) && now.Sub(w.heard) > s.config.OfflineExpires {
			s.workers.remove(w.hostname)
		}
	}
}

// alive tells whether a worker is believed to be there.
func (s *State) alive(hostname string, now time.Time) bool {
	w := s.workers.get(hostname)
	return w != nil && w.alive(now)
}

// text stores a short text of a worker.
func (s *State) text(to *string, v any) {
	if text, isText := v.(string); isText && text != *to {
		*to = clip(text, maxName)
	}
}

// countsOf are the counts of a type of tasks. What is above the bound of names, and what has none, is counted as "".
func (s *State) countsOf(name string) *Counts {
	c := s.byType[name]
	if c == nil {
		if len(s.byType) >= maxTypes {
			name = ""
		}
		if c = s.byType[name]; c == nil {
			c = &Counts{}
			s.byType[name] = c
		}
	}
	return c
}

// Clear forgets all tasks and workers. With ready only the tasks that have ended, as Celery's State.clear_tasks.
func (s *State) Clear(ready bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for t := range s.tasks.oldestFirst() {
		if !ready || isReady(t.state.String()) {
			s.forget(t)
		}
	}
	if !ready {
		s.workers = newRecent[workerRecord]()
		clear(s.byType)
	}
}
