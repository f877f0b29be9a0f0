package monitor

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
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

	// maxKnown bounds the names of task types, queues and states that are kept once for all. What is above it is kept by each task.
	maxKnown = 10_000
	// sweepInterval is how often workers that are not there are looked for.
	sweepInterval = time.Minute
)

// StateConfig bounds a State. The zero value has the defaults.
type StateConfig struct {
	// MaxTasks is how many tasks are remembered, 10,000 by default. The one that was not heard of for the longest time is
	// forgotten first, as it is when the tasks take more than MaxBytes (128 MiB).
	MaxTasks int
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

	mu           sync.RWMutex
	tasks        map[string]*taskRecord
	newestTask   *taskRecord // heard of last
	oldestTask   *taskRecord
	bytes        int
	workers      map[string]*workerRecord
	newestWorker *workerRecord
	oldestWorker *workerRecord
	names        map[string]string // texts that many share
	byState      map[string]int
	byType       map[string]*Counts
	events       int64
	ignored      int64
	forgotten    int64
	swept        time.Time
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
	return &State{config: c, now: time.Now, tasks: map[string]*taskRecord{}, workers: map[string]*workerRecord{}, names: map[string]string{},
		byState: map[string]int{}, byType: map[string]*Counts{}}, nil
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
	t := s.task(id)
	advances := t.advances(stateOf(e.Type), e)
	var w *workerRecord
	if e.Type == taskSent {
		t.client = s.known(e.Hostname)
	} else {
		w = s.worker(e.Hostname)
		w.hears(e, now)
		if advances || t.worker == "" {
			t.worker = w.hostname
		}
	}
	if t.merge(s, e, advances) {
		s.countsOf(t.name).add(e)
		if w != nil {
			w.counts.add(e)
		}
	}
	size := t.measure()
	s.bytes += size - t.size
	t.size = size
	for s.oldestTask != t && (len(s.tasks) > s.config.MaxTasks || s.bytes > s.config.MaxBytes) {
		s.forget(s.oldestTask)
		s.forgotten++
	}
}

// task is the record of an id, made if need be, and the newest now.
func (s *State) task(id string) *taskRecord {
	t := s.tasks[id]
	if t == nil {
		t = &taskRecord{id: strings.Clone(id)}
		s.tasks[t.id] = t
		s.count("", 1)
	} else {
		if t == s.newestTask {
			return t
		}
		s.unlinkTask(t)
	}
	t.older = s.newestTask
	if t.older != nil {
		t.older.newer = t
	}
	s.newestTask = t
	if s.oldestTask == nil {
		s.oldestTask = t
	}
	return t
}

func (s *State) unlinkTask(t *taskRecord) {
	if t.newer != nil {
		t.newer.older = t.older
	} else {
		s.newestTask = t.older
	}
	if t.older != nil {
		t.older.newer = t.newer
	} else {
		s.oldestTask = t.newer
	}
	t.newer, t.older = nil, nil
}

// forget lets go of a task.
func (s *State) forget(t *taskRecord) {
	s.unlinkTask(t)
	delete(s.tasks, t.id)
	s.bytes -= t.size
	s.count(t.state, -1)
}

// move changes a task's state, and the counts with it.
func (s *State) move(t *taskRecord, state string) {
	s.count(t.state, -1)
	t.state = state
	s.count(state, 1)
}

// count changes the number of tasks in a state.
func (s *State) count(state string, by int) {
	if n := s.byState[state] + by; n > 0 {
		s.byState[state] = n
	} else {
		delete(s.byState, state)
	}
}

// worker is the record of a node name, made if need be, and the newest now.
func (s *State) worker(hostname string) *workerRecord {
	w := s.workers[hostname]
	if w == nil {
		w = &workerRecord{hostname: strings.Clone(hostname), freq: defaultFreq}
		s.workers[w.hostname] = w
	} else {
		if w == s.newestWorker {
			return w
		}
		s.unlinkWorker(w)
	}
	w.older = s.newestWorker
	if w.older != nil {
		w.older.newer = w
	}
	s.newestWorker = w
	if s.oldestWorker == nil {
		s.oldestWorker = w
	}
	if len(s.workers) > s.config.MaxWorkers && s.oldestWorker != w {
		s.forgetWorker(s.oldestWorker)
	}
	return w
}

func (s *State) unlinkWorker(w *workerRecord) {
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		s.newestWorker = w.older
	}
	if w.older != nil {
		w.older.newer = w.newer
	} else {
		s.oldestWorker = w.newer
	}
	w.newer, w.older = nil, nil
}

// forgetWorker lets go of a worker. Its tasks keep its name.
func (s *State) forgetWorker(w *workerRecord) {
	s.unlinkWorker(w)
	delete(s.workers, w.hostname)
}

// sweep forgets the workers that are not there for too long.
func (s *State) sweep(now time.Time) {
	for w := s.oldestWorker; w != nil; {
		next := w.newer
		if last := cmp.Or(w.heard, moment(w.gone)); !w.alive(now) && now.Sub(last) > s.config.OfflineExpires {
			s.forgetWorker(w)
		}
		w = next
	}
}

// alive tells whether a worker is believed to be there.
func (s *State) alive(hostname string, now time.Time) bool {
	w := s.workers[hostname]
	return w != nil && w.alive(now)
}

// known is a text that many records share, kept once.
func (s *State) known(text string) string {
	if len(text) > maxName {
		text = clip(text, maxName)
	}
	if k, ok := s.names[text]; ok {
		return k
	}
	text = strings.Clone(text)
	if len(s.names) < maxKnown {
		s.names[text] = text
	}
	return text
}

// share stores a text that many tasks have, if it is one.
func (s *State) share(to *string, v any) {
	if text, _ := v.(string); text != "" && text != *to {
		*to = s.known(text)
	}
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
		if len(s.byType) >= maxKnown {
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
	for _, t := range slices.Collect(maps.Values(s.tasks)) {
		if !ready || isReady(t.state) {
			s.forget(t)
		}
	}
	if ready {
		return
	}
	for _, w := range slices.Collect(maps.Values(s.workers)) {
		s.forgetWorker(w)
	}
	clear(s.names)
	clear(s.byType)
}
