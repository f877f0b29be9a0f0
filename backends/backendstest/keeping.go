package backendstest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// testCleanup is testExpires for a backends.Cleaner: what is stored stays until somebody cleans up, whose own Expires counts.
func testCleanup(t *testing.T, open Opener) {
	brief, usual := open(t, backends.Options{Expires: time.Second}), open(t, backends.Options{})
	forever := open(t, backends.Options{Expires: -1})
	clean := func(b backends.Backend) {
		t.Helper()
		if err := b.(backends.Cleaner).Cleanup(deadline(t)); err != nil {
			t.Fatal(err)
		}
	}
	old := func(s *protocol.ResultMeta) *protocol.ResultMeta {
		s.DateDone = time.Now()
		return s
	}
	mustStore(t, brief, old(success("a", nil)), old(failure("b")), state("c", protocol.Started))
	clean(usual)
	clean(forever)
	for id, want := range map[string]protocol.State{"a": protocol.Success, "b": protocol.Failure, "c": protocol.Started} {
		wantState(t, usual, id, want)
	}
	ctx := deadline(t)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for _, id := range []string{"a", "b", "c"} {
		for mustGet(t, usual, id).Status != protocol.Pending {
			select {
			case <-tick.C:
				clean(brief)
			case <-ctx.Done():
				t.Fatalf("%s does not expire", id)
			}
		}
	}
	mustStore(t, usual, failure("a")) // an expired success does not stay
	wantState(t, usual, "a", protocol.Failure)
}

func testGroups(t *testing.T, open Opener) {
	saver, reader := open(t, backends.Options{}).(backends.GroupKeeper), open(t, backends.Options{}).(backends.GroupKeeper)
	load := func(id string) *protocol.ResultTuple {
		t.Helper()
		g, err := reader.LoadGroup(deadline(t), id)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	if g := load("none"); g != nil {
		t.Errorf("of a group that nobody saved is there %v", g)
	}
	group := &protocol.ResultTuple{ID: "g", Children: []protocol.ResultTuple{{ID: "a"},
		{ID: "inner", Parent: &protocol.ResultTuple{ID: "p"}, Children: []protocol.ResultTuple{{ID: "b"}, {ID: "c", Parent: &protocol.ResultTuple{ID: "a"}}}}}}
	for _, g := range []*protocol.ResultTuple{group, {ID: "empty", Children: []protocol.ResultTuple{}}} {
		for range 2 { // saving again changes nothing
			if err := saver.SaveGroup(deadline(t), g); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(g, load(g.ID)); d != "" {
				t.Error(d)
			}
		}
	}
	// Another meaning of the same id replaces the first.
	smaller := &protocol.ResultTuple{ID: "g", Children: []protocol.ResultTuple{{ID: "z"}}}
	if err := saver.SaveGroup(deadline(t), smaller); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(smaller, load("g")); d != "" {
		t.Error(d)
	}
	for range 2 { // forgetting what is not there is no error
		if err := saver.ForgetGroup(deadline(t), "g"); err != nil {
			t.Fatal(err)
		}
	}
	if g := load("g"); g != nil {
		t.Errorf("of a forgotten group is there %v", g)
	}
	if err := saver.SaveGroup(deadline(t), &protocol.ResultTuple{}); err == nil {
		t.Error("a group without an id is saved")
	}
}
