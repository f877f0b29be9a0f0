package worker

import (
	"fmt"
	"testing"
	"time"
)

func TestLimitedSet(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return begin.Add(time.Duration(seconds) * time.Second) }
	s := newLimitedSet(3, 10*time.Second)
	for i, step := range []struct {
		name    string
		at, now int
		want    bool
		holds   string // which of abcdz, at now
	}{
		{"a", 0, 0, true, "a"},
		{"a", 0, 0, false, "a"},
		{"b", 1, 1, true, "ab"},
		{"a", 2, 2, true, "ab"}, // younger now than b
		{"c", 9, 3, true, "abc"},
		{"d", 3, 3, true, "acd"},   // b was the oldest; c's time was of a clock that is ahead
		{"z", -9, 3, false, "acd"}, // too old
		{"z", 1, 4, false, "acd"},  // older than all, and it is full
		{"b", 5, 12, true, "bcd"},  // a has expired
		{"b", 5, 13, false, "b"},   // and these, though nothing has removed them yet
	} {
		if got := s.add(step.name, at(step.at), at(step.now)); got != step.want {
			t.Errorf("step %d: add(%s) = %v", i, step.name, got)
		}
		holds := ""
		for _, name := range []string{"a", "b", "c", "d", "z"} {
			if s.has(name, at(step.now)) {
				holds += name
			}
		}
		if holds != step.holds {
			t.Errorf("step %d: it holds %q; expected %q", i, holds, step.holds)
		}
	}
	for i := range 100_000 {
		s.add(fmt.Sprint(i), at(20), at(20))
	}
	if s.len() != 3 || len(s.oldest) != 3 {
		t.Errorf("it grew to %d and %d", s.len(), len(s.oldest))
	}
}
