package monitor

import (
	"slices"
	"strings"
)

// TaskQuery selects tasks. What is zero selects all.
type TaskQuery struct {
	State  string
	Name   string
	Worker string
	Queue  string
	Phase  Phase
	RootID string // the workflow that begins with this task
	Limit  int    // at most so many; 0: all
}

// Tasks are the tasks that a query selects, the one heard of last first.
func (s *State) Tasks(q TaskQuery) []Task {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Task
	for t := range s.tasks.newestFirst() {
		if q.State != "" && t.state.String() != q.State || q.Name != "" && t.name.String() != q.Name || q.Queue != "" && t.queue.String() != q.Queue ||
			q.Worker != "" && t.worker.String() != q.Worker || q.RootID != "" && t.rootID != q.RootID ||
			q.Phase != "" && t.phase(s, now) != q.Phase {
			continue
		}
		if out = append(out, t.task(s, now)); len(out) == q.Limit {
			break
		}
	}
	return out
}

// Task is one task. One that is not known is in PhaseUnknown: it was never sent, no event of it was heard, or it is forgotten.
func (s *State) Task(id string) Task {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	if t := s.tasks.get(id); t != nil {
		return t.task(s, now)
	}
	return Task{ID: id, Phase: PhaseUnknown}
}

// Workers are the workers that are remembered, by node name, those not alive included.
func (s *State) Workers() []Worker {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]Worker, 0, s.workers.len())
	for w := range s.workers.oldestFirst() {
		out = append(out, w.worker(now))
	}
	slices.SortFunc(out, func(a, b Worker) int { return strings.Compare(a.Hostname, b.Hostname) })
	return out
}

// Totals are the figures of a State.
type Totals struct {
	Events    int64             `json:"events"`    // heard since the beginning
	Ignored   int64             `json:"ignored"`   // of them, those of no task or worker
	Tasks     int               `json:"tasks"`     // remembered
	Forgotten int64             `json:"forgotten"` // tasks, for want of room
	Bytes     int               `json:"bytes"`     // about what the tasks take
	Workers   int               `json:"workers"`   // remembered
	Alive     int               `json:"alive"`     // of them
	ByState   map[string]int    `json:"by_state"`  // remembered tasks
	ByType    map[string]Counts `json:"by_type"`   // events since the beginning; "": of tasks whose name is not known
}

// Totals counts.
func (s *State) Totals() Totals {
	now := s.now()
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := Totals{Events: s.events, Ignored: s.ignored, Tasks: s.tasks.len(), Forgotten: s.forgotten, Bytes: s.memory(), Workers: s.workers.len(),
		ByState: make(map[string]int, len(s.states.all)), ByType: make(map[string]Counts, len(s.byType))}
	for state, n := range s.states.all {
		if n.users > 0 {
			out.ByState[state] = n.users
		}
	}
	for name, c := range s.byType {
		out.ByType[name] = *c
	}
	for w := range s.workers.oldestFirst() {
		if w.alive(now) {
			out.Alive++
		}
	}
	return out
}
