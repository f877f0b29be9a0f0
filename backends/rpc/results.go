package rpc

import (
	"container/list"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// Bounds of what a client keeps. What is being watched is not counted: whoever watches bounds that.
const (
	mostExpected  = 100_000   // tasks announced of which nothing was heard
	mostArrived   = 100_000   // tasks of which something was heard that nobody has waited for yet
	arrivedBytes  = 256 << 20 // of their documents
	mostDelivered = 10_000    // tasks whose end somebody has been told
	deliveredSize = 64 << 20  // bytes of their documents
)

// reply is one message in the reply queue.
type reply struct{ id, text string }

// results is what a client knows of its tasks. A task goes from expected to arrived to delivered, and while somebody
// watches it, it is on none of these shelves. From a shelf that is full the oldest falls.
type results struct {
	decoder decoder
	expires time.Duration // of what has arrived; negative: never
	log     *slog.Logger

	mu        sync.Mutex
	ended     error // why nothing is heard any more; nil: it is
	tasks     map[string]*record
	expected  shelf
	arrived   shelf
	delivered shelf
	warned    bool // that something was forgotten
}

// record is what is known of one task.
type record struct {
	id        string
	text      string // the latest document, packed; empty: none yet
	delivered bool   // a Watch has yielded the end of the task
	inboxes   []*backends.Inbox

	shelf *shelf
	place *list.Element
	since time.Time // on this shelf
}

// shelf holds records, the oldest in front.
type shelf struct {
	list  list.List
	bytes int
	// The bounds; at least one record stays.
	most, mostBytes int
}

func newResults(d decoder, expires time.Duration, log *slog.Logger) *results {
	return &results{decoder: d, expires: expires, log: log, tasks: map[string]*record{},
		expected:  shelf{most: mostExpected},
		arrived:   shelf{most: mostArrived, mostBytes: arrivedBytes},
		delivered: shelf{most: mostDelivered, mostBytes: deliveredSize},
	}
}

func (s *shelf) full() bool {
	return s.list.Len() > s.most || s.bytes > s.mostBytes && s.list.Len() > 1
}

func (s *shelf) oldest() *record {
	if front := s.list.Front(); front != nil {
		return front.Value.(*record)
	}
	return nil
}

// take takes a record off its shelf.
func (r *record) take() {
	if r.shelf != nil {
		r.shelf.list.Remove(r.place)
		r.shelf.bytes -= len(r.text)
		r.shelf, r.place = nil, nil
	}
}

// put puts a record, which is on no shelf, where it belongs, and lets fall what is too much. The mutex is held.
func (s *results) put(r *record, now time.Time) {
	switch {
	case len(r.inboxes) > 0:
		return
	case r.text == "":
		r.shelf = &s.expected
	case r.delivered:
		r.shelf = &s.delivered
	default:
		r.shelf = &s.arrived
	}
	r.place, r.since = r.shelf.list.PushBack(r), now
	r.shelf.bytes += len(r.text)
	for r.shelf != nil && r.shelf.full() {
		old := r.shelf.oldest()
		if !old.delivered && !s.warned {
			s.warned = true
			s.log.Warn("too many results that nobody waits for: the oldest are forgotten, now and from here on; "+
				"let tasks ignore their results, or read them", "expected", s.expected.list.Len(), "arrived", s.arrived.list.Len())
		}
		s.drop(old)
	}
	for _, shelf := range []*shelf{&s.arrived, &s.delivered} {
		for old := shelf.oldest(); old != nil && s.expired(old, now); old = shelf.oldest() {
			s.drop(old)
		}
	}
}

// drop forgets a record that nobody watches. The mutex is held.
func (s *results) drop(r *record) {
	r.take()
	delete(s.tasks, r.id)
}

// expired reports whether the result of an unwatched task is too old.
func (s *results) expired(r *record, now time.Time) bool {
	return s.expires > 0 && r.text != "" && r.shelf != nil && now.Sub(r.since) >= s.expires
}

// find returns what is known of a task, or nil. The mutex is held.
func (s *results) find(id string) *record {
	r := s.tasks[id]
	if r != nil && s.expired(r, time.Now()) {
		s.drop(r)
		return nil
	}
	return r
}

// expect announces tasks. Of one that is known already nothing is lost.
func (s *results) expect(ids []string) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		return s.ended
	}
	for _, id := range ids {
		if s.find(id) == nil {
			r := &record{id: id}
			s.tasks[id] = r
			s.put(r, now)
		}
	}
	return nil
}

// arrive takes in what was heard, in its order. What nobody expects is kept too, it may be asked for later.
func (s *results) arrive(replies []reply) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range replies {
		r := s.find(n.id)
		if r == nil {
			r = &record{id: n.id}
			s.tasks[n.id] = r
		} else if r.text != "" && !s.supersedes(n.text, r) {
			continue
		}
		r.take()
		r.text, r.delivered = n.text, false
		s.put(r, now)
		for _, in := range r.inboxes {
			in.Put(r.id, r.text)
		}
	}
}

// supersedes reports whether a document takes the place of the one that is there. The newest counts, but the end of a
// task is not undone by a run that began later: a SUCCESS stays, and another final state gives way to a final one only.
func (s *results) supersedes(text string, r *record) bool {
	old, err := s.decoder.Decode(r.id, []byte(r.text))
	if err != nil || !old.Status.Ready() {
		return true
	}
	if old.Status == protocol.Success {
		return false
	}
	m, err := s.decoder.Decode(r.id, []byte(text))
	return err == nil && m.Status.Ready()
}

func (s *results) get(id string) (*protocol.ResultMeta, error) {
	s.mu.Lock()
	r, text := s.find(id), ""
	if r != nil {
		text = r.text
	}
	ended := s.ended
	s.mu.Unlock()
	switch {
	case text != "":
		return s.decoder.Decode(id, []byte(text))
	case ended != nil:
		return nil, ended
	}
	return backends.Pending(id), nil
}

// join makes an inbox hear of tasks, all of which must be known.
func (s *results) join(in *backends.Inbox, ids []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		r := s.find(id)
		switch {
		case s.ended != nil && (r == nil || r.text == ""):
			return s.ended
		case r == nil:
			return fmt.Errorf("task %s: %w", id, backends.ErrUnexpected)
		}
	}
	for _, id := range ids {
		r := s.tasks[id]
		r.take()
		r.inboxes = append(r.inboxes, in)
		if r.text == "" {
			in.PutAbsent(id)
		} else {
			in.Put(id, r.text)
		}
	}
	if s.ended != nil {
		in.Fail(s.ended)
	}
	return nil
}

// leave makes an inbox hear no more of tasks; delivered says that it has yielded their end. Leaving twice does nothing.
func (s *results) leave(in *backends.Inbox, delivered bool, ids ...string) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		r := s.tasks[id]
		if r == nil || !r.remove(in) {
			continue
		}
		r.delivered = r.delivered || delivered
		s.put(r, now)
	}
}

func (r *record) remove(in *backends.Inbox) bool {
	for i, other := range r.inboxes {
		if other == in {
			last := len(r.inboxes) - 1
			r.inboxes[i], r.inboxes[last] = r.inboxes[last], nil
			r.inboxes = r.inboxes[:last]
			return true
		}
	}
	return false
}

func (s *results) forget(ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		r := s.tasks[id]
		switch {
		case r == nil:
		case len(r.inboxes) > 0:
			r.text, r.delivered = "", false // who watches goes on
		default:
			s.drop(r)
		}
	}
}

// close ends every Watch: nothing will be heard any more.
func (s *results) close(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = err
	}
	for _, r := range s.tasks {
		for _, in := range r.inboxes {
			in.Fail(err)
		}
	}
}
