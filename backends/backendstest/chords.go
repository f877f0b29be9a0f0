package backendstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// ofChordCounters is what holds for a backends.ChordCounter.
var ofChordCounters = []test{
	{"ChordIsOrdered", testChordIsOrdered},
	{"ChordWithoutPlaces", testChordWithoutPlaces},
	{"ChordWithoutSize", testChordWithoutSize},
	{"ChordCountsATaskOnce", testChordCountsATaskOnce},
	{"ChordIsCompleteByOneTask", testChordIsCompleteByOneTask},
	{"ChordThatEnded", testChordThatEnded},
	{"ChordThatGrew", testChordThatGrew},
	{"ChordThatFailed", testChordThatFailed},
	{"ChordsInOneBatch", testChordsInOneBatch},
	{"ChordOfASavedGroup", testChordOfASavedGroup},
	{"ChordPartThatCannotBeEncoded", testChordPartThatCannotBeEncoded},
	{"ChordSerializers", testChordSerializers},
	{"ChordOfThousandCountedConcurrently", testChordConcurrent},
	{"ChordThatGrowsConcurrently", testChordGrowsConcurrently},
}

// chords is a ChordCounter under test, whose calls may not fail.
type chords struct {
	t *testing.T
	b backends.ChordCounter
}

func openChords(t *testing.T, open Opener, o backends.Options) chords {
	t.Helper()
	b, ok := open(t, o).(backends.ChordCounter)
	if !ok {
		t.Fatal("this backend counts no chords, another of this kind did")
	}
	return chords{t, b}
}

func (c chords) start(group string, size int) {
	c.t.Helper()
	if err := c.b.StartChords(deadline(c.t), []backends.ChordSize{{Group: group, Size: size}}); err != nil {
		c.t.Fatal(err)
	}
}

func (c chords) end(groups ...string) {
	c.t.Helper()
	ended := make([]backends.ChordEnd, len(groups))
	for i, group := range groups {
		ended[i].Group = group
	}
	if err := c.b.EndChords(deadline(c.t), ended); err != nil {
		c.t.Fatal(err)
	}
}

func (c chords) count(parts ...backends.ChordPart) []backends.ChordState {
	c.t.Helper()
	states, err := c.b.CountParts(deadline(c.t), parts)
	if err != nil {
		c.t.Fatal(err)
	}
	if len(states) != len(parts) {
		c.t.Fatalf("%d states of %d parts", len(states), len(parts))
	}
	return states
}

// wantNot counts parts none of which completes anything.
func (c chords) wantNot(parts ...backends.ChordPart) {
	c.t.Helper()
	for i, s := range c.count(parts...) {
		if d := cmp.Diff(backends.ChordState{}, s); d != "" {
			c.t.Errorf("part %s of %s: %s", parts[i].Meta.TaskID, parts[i].Group, d)
		}
	}
}

// want counts a part that completes its chord.
func (c chords) want(p backends.ChordPart, results ...any) {
	c.t.Helper()
	if d := cmp.Diff(backends.ChordState{Complete: true, Results: results}, c.count(p)[0]); d != "" {
		c.t.Errorf("part %s of %s: %s", p.Meta.TaskID, p.Group, d)
	}
}

// part is a part of the chord at a place, or at none if that is negative.
func part(group string, place int, m *protocol.ResultMeta) backends.ChordPart {
	p := backends.ChordPart{Group: group, Meta: m}
	if place >= 0 {
		p.Index = &place
	}
	return p
}

func testChordIsOrdered(t *testing.T, open Opener) {
	c, other := openChords(t, open, backends.Options{}), openChords(t, open, backends.Options{})
	c.start("g", 12)
	var want []any
	for i := range 12 {
		want = append(want, fmt.Sprint("result ", i))
	}
	places := rand.Perm(12)
	for _, i := range places[1:] {
		c.wantNot(part("g", i, success(fmt.Sprint("t", i), want[i])))
		c, other = other, c
	}
	c.want(part("g", places[0], success(fmt.Sprint("t", places[0]), want[places[0]])), want...)
}

func testChordWithoutPlaces(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	c.start("g", 4)
	c.wantNot(part("g", -1, success("z", "last")), part("g", 1, success("x", "second")), part("g", 0, success("y", "first")))
	c.want(part("g", -1, success("a", "third")), "first", "second", "third", "last")
}

func testChordWithoutSize(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	unsized := backends.ChordState{Unsized: true}
	a, other := part("g", 0, success("a", nil)), part("other", 1, success("b", nil))
	if d := cmp.Diff([]backends.ChordState{unsized, unsized, unsized}, c.count(a, other, a)); d != "" {
		t.Error(d)
	}
	c.start("g", 2)
	c.wantNot(a)
	if d := cmp.Diff([]backends.ChordState{unsized}, c.count(other)); d != "" {
		t.Error(d)
	}
	c.want(part("g", 1, success("b", nil)), nil, nil)
	c.end("g", "other")
	c.wantNot(a, other)
}

func testChordCountsATaskOnce(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	c.start("g", 3)
	c.wantNot(part("g", 0, success("a", int64(1))), part("g", 0, success("a", int64(1))))
	c.wantNot(part("g", 0, success("a", int64(2)))) // it ran again, and came to something else
	c.wantNot(part("g", -1, success("c", int64(1))), part("g", -1, success("c", int64(2))), part("g", -1, success("c", int64(0))))
	c.want(part("g", 1, success("b", int64(5))), int64(2), int64(5), int64(0))

	c.start("same place", 3) // as after add_to_chord
	c.wantNot(part("same place", 0, success("a", int64(1))), part("same place", 0, success("b", int64(1))), part("same place", 0, success("a", int64(3))))
	c.want(part("same place", 0, success("c", int64(0))), int64(3), int64(1), int64(0))
}

func testChordIsCompleteByOneTask(t *testing.T, open Opener) {
	c, other := openChords(t, open, backends.Options{}), openChords(t, open, backends.Options{})
	c.start("g", 2)
	a, b := part("g", 0, success("a", int64(1))), part("g", 1, success("b", int64(2)))
	c.wantNot(a)
	c.want(b, int64(1), int64(2))
	other.wantNot(a) // it ran again while the body is on its way
	other.want(b, int64(1), int64(2))
	b.Meta = success("b", int64(3))
	other.want(b, int64(1), int64(3))
	other.start("g", 2) // whoever sent the chord ran again
	other.wantNot(a)
	other.want(b, int64(1), int64(3))
}

func testChordThatEnded(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	c.start("g", 2)
	c.start("early", 1)
	a, b := part("g", 0, success("a", int64(1))), part("g", 1, success("b", int64(2)))
	c.wantNot(a)
	c.want(b, int64(1), int64(2))
	c.end("g", "early", "never heard of")
	c.wantNot(a, b, part("early", 0, success("a", nil)))
	c.start("g", 2)
	c.wantNot(a, b)
	c.end("g")
	c.wantNot(b)
	c.end()
	c.wantNot()
}

func testChordThatGrew(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	grow := func(id string, by int, who string) {
		t.Helper()
		if err := c.b.GrowChord(deadline(t), backends.ChordGrowth{Group: "g", Part: id, Size: by, By: who}); err != nil {
			t.Fatal(err)
		}
	}
	shrink := func(id string, by int, who string) {
		t.Helper()
		if err := c.b.ShrinkChord(deadline(t), backends.ChordGrowth{Group: "g", Part: id, Size: by, By: who}); err != nil {
			t.Fatal(err)
		}
	}
	grow("b", 1, "x")
	grow("b", 1, "x") // after a lost reply
	c.start("g", 1)
	grow("b", 1, "y") // by a task that runs again
	shrink("b", 1, "y")
	shrink("never", 1, "x")
	grow("c", 2, "x")
	grow("gone", 5, "x")
	shrink("gone", 5, "x")
	shrink("gone", 5, "x")
	c.wantNot(part("g", 0, success("a", "1")), part("g", 0, success("b", "2")), part("g", 1, success("c", "4")))
	c.want(part("g", 0, success("d", "3")), "1", "2", "3", "4")
	c.end("g")
	grow("b", 1, "z")
	c.start("g", 1)
	c.wantNot(part("g", 0, success("a", "1")))
}

func testChordThatFailed(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	revoked := failure("r")
	revoked.Status = protocol.Revoked
	for _, tt := range []struct {
		last  *protocol.ResultMeta
		place int
		want  *protocol.ResultMeta // the first in the order of the header
	}{
		{success("last", nil), 0, failure("f")},
		{failure("last"), 0, failure("last")},
		{revoked, 0, revoked},
		{failure("last"), 5, failure("f")},
	} {
		g := fmt.Sprint("group ending with ", tt.last.TaskID, tt.last.Status, tt.place)
		c.start(g, 3)
		c.wantNot(part(g, 2, success("s", nil)), part(g, 1, failure("f")))
		want := &protocol.ResultMeta{TaskID: tt.want.TaskID, Status: tt.want.Status, Exception: tt.want.Exception}
		if d := cmp.Diff(backends.ChordState{Complete: true, Failed: want}, c.count(part(g, tt.place, tt.last))[0]); d != "" {
			t.Errorf("%s: %s", g, d)
		}
		c.wantNot(part(g, 1, failure("f")))
	}
}

func testChordsInOneBatch(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	const n = 700 // more than one round trip
	sizes := make([]backends.ChordSize, n)
	var parts []backends.ChordPart
	for i := range n {
		g := fmt.Sprint("g", i)
		sizes[i] = backends.ChordSize{Group: g, Size: 2}
		parts = append(parts, part(g, 0, success("a"+g, int64(i))), part(g, 1, success("b"+g, nil)))
	}
	if err := c.b.StartChords(deadline(t), sizes); err != nil {
		t.Fatal(err)
	}
	for i, s := range c.count(parts...) {
		want := backends.ChordState{}
		if i%2 == 1 {
			want = backends.ChordState{Complete: true, Results: []any{int64(i / 2), nil}}
		}
		if d := cmp.Diff(want, s); d != "" {
			t.Fatalf("part %d: %s", i, d)
		}
	}
}

func testChordOfASavedGroup(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	keeper, ok := c.b.(backends.GroupKeeper)
	if !ok {
		t.Fatal("whoever counts chords keeps groups")
	}
	leaf := func(id string) protocol.ResultTuple { return protocol.ResultTuple{ID: id} }
	save := func(id string) {
		t.Helper()
		tree := &protocol.ResultTuple{ID: id, Children: []protocol.ResultTuple{leaf("a"),
			{ID: "inner", Children: []protocol.ResultTuple{leaf("b"), {ID: "empty", Children: []protocol.ResultTuple{}}, leaf("stored")}}}}
		if err := keeper.SaveGroup(deadline(t), tree); err != nil {
			t.Fatal(err)
		}
		c.start(id, 2)
	}
	save("g")
	c.wantNot(part("g", 1, success("b", int64(2))))
	if s := c.count(part("g", 0, success("a", int64(1))))[0]; !s.Complete || s.Err == nil || s.Results != nil {
		t.Errorf("a result of the group is not there, but %+v", s)
	}
	mustStore(t, c.b.(backends.Backend), success("stored", int64(3)))
	c.want(part("g", 0, success("a", int64(1))), int64(1), []any{int64(2), []any{}, int64(3)})

	save("failing")
	c.wantNot(part("failing", 0, success("a", nil)))
	if s := c.count(part("failing", 1, failure("b")))[0]; !s.Complete || s.Failed == nil || s.Failed.TaskID != "b" || s.Results != nil {
		t.Errorf("%+v", s)
	}
}

func testChordPartThatCannotBeEncoded(t *testing.T, open Opener) {
	c := openChords(t, open, backends.Options{})
	c.start("g", 1)
	for _, bad := range []*protocol.ResultMeta{success("bad", func() {}), {TaskID: "bad", Status: protocol.Failure}} {
		_, err := c.b.CountParts(deadline(t), []backends.ChordPart{part("g", 0, success("good", nil)), part("g", 1, bad)})
		var encodeErr *backends.EncodeError
		if !errors.As(err, &encodeErr) || encodeErr.TaskID != "bad" {
			t.Fatalf("got %v, want an EncodeError of task bad", err)
		}
	}
	c.want(part("g", 0, success("good", nil)), nil) // nothing was counted before
}

func testChordSerializers(t *testing.T, open Opener) {
	for _, name := range []string{"json", "msgpack", "yaml"} {
		c := openChords(t, open, backends.Options{Serializer: name})
		c.start(name, 3)
		c.wantNot(part(name, -1, success("a", int64(1))), part(name, -1, success("a", int64(2))), part(name, -1, success("ab", []any{"x"})))
		c.want(part(name, 0, success("b", map[string]any{"k": 1.5})), map[string]any{"k": 1.5}, int64(2), []any{"x"})
	}
}

func testChordConcurrent(t *testing.T, open Opener) {
	const parts, workers = 1000, 8
	c := openChords(t, open, backends.Options{})
	counter := []chords{c, openChords(t, open, backends.Options{})}
	c.start("g", parts)
	places := make(chan int, 2*parts)
	for _, i := range append(rand.Perm(parts), rand.Perm(parts)[:parts/2]...) { // every second one twice
		places <- i
	}
	close(places)
	ctx := deadline(t)
	var complete sync.Map // task id → results
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range places {
				id := fmt.Sprint("t", i)
				states, err := counter[w%2].b.CountParts(ctx, []backends.ChordPart{part("g", i, success(id, int64(i)))})
				if err != nil {
					t.Error(err)
					return
				}
				if states[0].Complete {
					complete.Store(id, states[0].Results)
				}
			}
		})
	}
	all.Wait()
	n := 0
	complete.Range(func(id, results any) bool {
		n++
		for i, r := range results.([]any) {
			if r != int64(i) {
				t.Fatalf("result %d is %v", i, r)
			}
		}
		if len(results.([]any)) != parts {
			t.Errorf("complete by %v with %d results", id, len(results.([]any)))
		}
		return true
	})
	if n != 1 {
		t.Errorf("complete by %d tasks", n)
	}
}

func testChordGrowsConcurrently(t *testing.T, open Opener) {
	const parts = 100
	c := openChords(t, open, backends.Options{})
	c.start("g", parts)
	ctx := deadline(t)
	var complete atomic.Int32
	var all sync.WaitGroup
	count := func(id string, place int) {
		states, err := c.b.CountParts(ctx, []backends.ChordPart{part("g", place, success(id, nil))})
		if err != nil {
			t.Error(err)
		} else if states[0].Complete {
			complete.Add(1)
			if len(states[0].Results) != 2*parts {
				t.Errorf("complete with %d results", len(states[0].Results))
			}
		}
	}
	for i := range parts {
		all.Go(func() {
			if err := c.b.GrowChord(ctx, backends.ChordGrowth{Group: "g", Part: fmt.Sprint("added", i), Size: 1, By: "t"}); err != nil { // from inside the part, so before it is counted
				t.Error(err)
			}
			count(fmt.Sprint("t", i), i)
			count(fmt.Sprint("added", i), i)
		})
	}
	all.Wait()
	if n := complete.Load(); n != 1 {
		t.Errorf("complete %d times", n)
	}
}
