package rpc

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

// kept makes results with small shelves.
func kept(t testing.TB, log *slog.Logger) *results {
	t.Helper()
	d, err := newDecoder(serialization.Accept{}, serialization.JSON)
	if err != nil {
		t.Fatal(err)
	}
	s := newResults(d, time.Hour, log)
	s.expected.most, s.arrived.most, s.delivered.most = 3, 3, 3
	return s
}

func hear(t testing.TB, s *results, m *protocol.ResultMeta) {
	t.Helper()
	message, err := protocol.NewReply(m, serialization.JSON, false)
	if err != nil {
		t.Fatal(err)
	}
	s.arrive([]reply{{m.TaskID, pack(message)}})
}

// watchOnce yields what a Watch yields before it would have to wait.
func watchOnce(t testing.TB, s *results, id string) (*protocol.ResultMeta, error) {
	t.Helper()
	in, ids := backends.NewInbox([]string{id})
	if err := s.join(in, ids); err != nil {
		return nil, err
	}
	defer s.leave(in, false, ids...)
	var m *protocol.ResultMeta
	var err error
	in.Run(t.Context(), s.decoder, func(id string) { s.leave(in, true, id) }, func(first *protocol.ResultMeta, e error) bool {
		m, err = first, e
		return false
	})
	return m, err
}

func TestSupersedes(t *testing.T) {
	t.Parallel()
	started := &protocol.ResultMeta{TaskID: "a", Status: protocol.Started}
	progress := &protocol.ResultMeta{TaskID: "a", Status: "PROGRESS", Result: int64(1)}
	failed := &protocol.ResultMeta{TaskID: "a", Status: protocol.Failure, Exception: &protocol.Exception{Type: "E"}}
	revoked := &protocol.ResultMeta{TaskID: "a", Status: protocol.Revoked, Exception: &protocol.Exception{Type: "E"}}
	tests := []struct {
		heard []*protocol.ResultMeta
		want  protocol.State
	}{
		{[]*protocol.ResultMeta{started, progress, started}, protocol.Started},
		{[]*protocol.ResultMeta{started, success("a", "")}, protocol.Success},
		{[]*protocol.ResultMeta{success("a", ""), started, failed, progress}, protocol.Success},
		{[]*protocol.ResultMeta{failed, started}, protocol.Failure},
		{[]*protocol.ResultMeta{failed, revoked}, protocol.Revoked},
		{[]*protocol.ResultMeta{failed, started, success("a", "")}, protocol.Success},
	}
	for _, tt := range tests {
		s := kept(t, slog.New(slog.DiscardHandler))
		for _, m := range tt.heard {
			hear(t, s, m)
		}
		if m, err := s.get("a"); err != nil || m.Status != tt.want {
			t.Errorf("got %v, %v, want %s", m, err, tt.want)
		}
	}
	// What cannot be read gives way to everything, and undoes no end.
	s := kept(t, slog.New(slog.DiscardHandler))
	s.arrive([]reply{{"a", "application/json\n\n\n{"}})
	hear(t, s, failed)
	s.arrive([]reply{{"a", "application/json\n\n\n{"}})
	if m, err := s.get("a"); err != nil || m.Status != protocol.Failure {
		t.Errorf("got %v, %v", m, err)
	}
}

func TestTheOldestAreForgotten(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := kept(t, slog.New(slog.NewTextHandler(&log, nil)))
	state := func(id string) protocol.State {
		m, err := watchOnce(t, s, id)
		if errors.Is(err, backends.ErrUnexpected) {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return m.Status
	}
	known := func(ids ...string) {
		t.Helper()
		for _, id := range []string{"a", "b", "c", "d", "e", "f", "g"} {
			if _, ok := s.tasks[id]; ok != slices.Contains(ids, id) {
				t.Errorf("task %s is known: %v", id, ok)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	must(s.expect([]string{"a", "b", "c"}))
	known("a", "b", "c")
	if log.Len() > 0 {
		t.Errorf("warns too early: %s", &log)
	}
	// What is watched does not fall, and does not count.
	in, ids := backends.NewInbox([]string{"a"})
	must(s.join(in, ids))
	must(s.expect([]string{"d"}))
	known("a", "b", "c", "d")
	must(s.expect([]string{"e", "f"}))
	known("a", "d", "e", "f")
	if n := strings.Count(log.String(), "level=WARN"); n != 1 {
		t.Errorf("%d warnings: %s", n, &log)
	}
	if got := state("b"); got != "" {
		t.Errorf("b is %s", got)
	}
	s.leave(in, false, "a")
	known("a", "e", "f")

	// Arrived ones are another shelf; of one that has fallen a late result is kept nevertheless.
	for _, id := range []string{"a", "b", "e"} {
		hear(t, s, success(id, ""))
	}
	known("a", "b", "e", "f")
	hear(t, s, success("g", ""))
	known("b", "e", "f", "g")

	// And delivered ones a third, from which they fall without a word.
	before := log.Len()
	for _, id := range []string{"b", "e", "g"} {
		if got := state(id); got != protocol.Success {
			t.Errorf("%s is %q", id, got)
		}
	}
	known("b", "e", "f", "g")
	hear(t, s, success("f", ""))
	if state("b") != protocol.Success || state("f") != protocol.Success { // which makes them the latest
		t.Error("what was delivered cannot be watched again")
	}
	known("b", "f", "g")
	if log.Len() != before {
		t.Errorf("warns of what was delivered: %s", log.String()[before:])
	}
	if n := s.expected.list.Len() + s.arrived.list.Len(); n > 0 {
		t.Errorf("%d records lie where they do not belong", n)
	}
}

func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	s := kept(t, slog.New(slog.DiscardHandler))
	s.arrived.most, s.arrived.mostBytes = 1000, 10_000
	big := func(id string, size int) *protocol.ResultMeta {
		return &protocol.ResultMeta{TaskID: id, Status: "PROGRESS", Result: strings.Repeat("x", size)}
	}
	for i := range 100 {
		hear(t, s, big(strconv.Itoa(i%50), 1000))
	}
	if s.arrived.bytes > 10_000 || s.arrived.bytes < 8_000 || s.arrived.list.Len() != len(s.tasks) {
		t.Errorf("%d bytes in %d records of %d tasks", s.arrived.bytes, s.arrived.list.Len(), len(s.tasks))
	}
	hear(t, s, big("huge", 20_000)) // the latest stays, whatever its size
	if m, err := s.get("huge"); err != nil || m.Status != "PROGRESS" || len(s.tasks) != 1 {
		t.Errorf("got %v, %v of %d tasks", m, err, len(s.tasks))
	}
	s.forget([]string{"huge", "unknown"})
	if s.arrived.bytes != 0 || len(s.tasks) != 0 {
		t.Errorf("%d bytes of %d tasks", s.arrived.bytes, len(s.tasks))
	}
}

func TestExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := kept(t, slog.New(slog.DiscardHandler))
		if err := s.expect([]string{"waiting"}); err != nil {
			t.Fatal(err)
		}
		hear(t, s, success("a", ""))
		hear(t, s, success("b", ""))
		status := func(id string) protocol.State {
			m, err := s.get(id)
			if err != nil {
				t.Fatal(err)
			}
			return m.Status
		}
		<-time.After(time.Hour - 1) // of the bubble's clock
		if status("a") != protocol.Success {
			t.Error("expires too early")
		}
		<-time.After(1)
		if status("a") != protocol.Pending {
			t.Error("does not expire")
		}
		if _, err := watchOnce(t, s, "a"); !errors.Is(err, backends.ErrUnexpected) {
			t.Errorf("watching what has expired: %v", err)
		}
		hear(t, s, success("c", ""))
		if _, ok := s.tasks["b"]; ok {
			t.Error("what has expired stays in memory")
		}
		if _, ok := s.tasks["waiting"]; !ok {
			t.Error("what nothing was heard of has expired")
		}
	})
}
