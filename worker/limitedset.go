package worker

import (
	"container/heap"
	"time"
)

// limitedSet is Celery's LimitedSet: names with the time they were added, bounded in number and age. Of too many the oldest
// go. It is not safe for concurrent use.
type limitedSet struct {
	max     int
	expires time.Duration
	entries map[string]*limitedEntry
	oldest  limitedHeap
}

type limitedEntry struct {
	name  string
	at    time.Time
	index int // in oldest
}

func newLimitedSet(max int, expires time.Duration) *limitedSet {
	return &limitedSet{max: max, expires: expires, entries: map[string]*limitedEntry{}}
}

// add puts a name in, as of a time. It tells whether the set knew it not, or only as of an earlier time.
func (s *limitedSet) add(name string, at, now time.Time) bool {
	if at.After(now) {
		at = now // another machine's clock must not keep it for longer
	}
	if e := s.entries[name]; e != nil {
		if !at.After(e.at) {
			return false
		}
		e.at = at
		heap.Fix(&s.oldest, e.index)
		return true
	}
	s.purge(now)
	if now.Sub(at) >= s.expires {
		return false
	}
	e := &limitedEntry{name: name, at: at}
	s.entries[name] = e
	heap.Push(&s.oldest, e)
	if len(s.entries) > s.max {
		delete(s.entries, heap.Pop(&s.oldest).(*limitedEntry).name)
	}
	return s.entries[name] != nil
}

// purge lets go of what has expired.
func (s *limitedSet) purge(now time.Time) {
	for len(s.oldest) > 0 && now.Sub(s.oldest[0].at) >= s.expires {
		delete(s.entries, heap.Pop(&s.oldest).(*limitedEntry).name)
	}
}

func (s *limitedSet) has(name string, now time.Time) bool {
	e := s.entries[name]
	return e != nil && now.Sub(e.at) < s.expires
}

func (s *limitedSet) len() int { return len(s.entries) }

// all returns the names with their times.
func (s *limitedSet) all() map[string]time.Time {
	out := make(map[string]time.Time, len(s.entries))
	for name, e := range s.entries {
		out[name] = e.at
	}
	return out
}

// limitedHeap has the oldest entry first.
type limitedHeap []*limitedEntry

func (h limitedHeap) Len() int           { return len(h) }
func (h limitedHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h limitedHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *limitedHeap) Push(x any) {
	e := x.(*limitedEntry)
	e.index = len(*h)
	*h = append(*h, e)
}
func (h *limitedHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return e
}
