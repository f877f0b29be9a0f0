package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

var (
	sum    = task.Define[sumArgs, int]("tasks.sum")
	broken = task.Define[task.Raw, int]("tasks.broken")
	noted  = task.Define[task.Raw, task.NoResult]("tasks.noted")
)

type sumArgs struct{ Numbers []int }

// canvasSite is a site with tasks for workflows. What tasks.noted is called with is in notes.
type canvasSite struct {
	*site
	mu    sync.Mutex
	notes [][]any
	came  chan struct{}
}

func newCanvasSite(t *testing.T) *canvasSite {
	s := &canvasSite{site: newSite(t), came: make(chan struct{}, 100)}
	Handle(s.mux, sum, func(_ context.Context, a sumArgs) (int, error) {
		n := 0
		for _, x := range a.Numbers {
			n += x
		}
		return n, nil
	})
	Handle(s.mux, broken, func(context.Context, task.Raw) (int, error) { return 0, errors.New("kaput") })
	Handle(s.mux, noted, func(_ context.Context, a task.Raw) (task.NoResult, error) {
		s.mu.Lock()
		s.notes = append(s.notes, a.Args)
		s.mu.Unlock()
		s.came <- struct{}{}
		return task.NoResult{}, nil
	})
	return s
}

// apply applies a workflow and returns its result.
func (s *canvasSite) apply(sig task.Signature) *task.Result[any] {
	s.Helper()
	r, err := s.client.Apply(s.context(), sig)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// get is what a workflow returns.
func (s *canvasSite) get(sig task.Signature) any {
	s.Helper()
	v, err := s.apply(sig).Get(s.context())
	if err != nil {
		s.Fatalf("%v: %v", sig, err)
	}
	return v
}

// note waits for a call of tasks.noted and returns its arguments.
func (s *canvasSite) note() []any {
	s.Helper()
	select {
	case <-s.came:
	case <-s.context().Done():
		s.Fatal("tasks.noted was not called")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.notes[0]
	s.notes = s.notes[1:]
	return n
}

func ints(all ...int) []any {
	list := make([]any, len(all))
	for i, n := range all {
		list[i] = int64(n)
	}
	return list
}

func TestWorkflows(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4})
	plus := func(n int) task.Signature { return add.Rest(n) }
	two := add.S(addArgs{1, 1})
	long := []task.Signature{two}
	for range 299 { // more than a document may hold in one another
		long = append(long, plus(1))
	}
	for _, c := range []struct {
		name string
		sig  task.Signature
		want any
	}{
		{"long chain", task.Chain(long...), int64(301)},
		{"part that is a long chain", task.Chord(task.Group(task.Chain(long...), two), sum.Rest()), int64(303)},
		{"task", two, int64(2)},
		{"chain", task.Chain(two, plus(3), plus(4)), int64(9)},
		{"chain in a chain", task.Chain(two, task.Chain(plus(3), plus(4)), plus(5)), int64(14)},
		{"immutable step", task.Chain(two, add.S(addArgs{5, 5}).Immutable(), plus(1)), int64(11)},
		{"group", task.Group(two, task.Group(task.Chain(two, plus(1)), two)), ints(2, 3, 2)},
		{"group in a chain", task.Chain(two, task.Group(plus(1), plus(2))), ints(3, 4)},
		{"chord", task.Chord(task.Group(two, two.Then(plus(1))), sum.Rest()), int64(5)},
		{"chord without parts", task.Chord(task.Group(), sum.Rest()), int64(0)},
		{"group before a task", task.Chain(two, task.Group(plus(1), plus(2)), sum.Rest(), plus(10)), int64(17)},
		{"chord in a chord", task.Chord(task.Group(task.Chord(task.Group(two, two), sum.Rest()), two), sum.Rest()), int64(6)},
		{"chords one after another", task.Chain(task.Group(two, two), sum.Rest(), task.Group(plus(1), plus(2)), sum.Rest()), int64(11)},
		{"chord that ends in a group", task.Chain(task.Group(two, two), sum.Rest(), task.Group(plus(1), plus(2))), ints(5, 6)},
		{"chain that ends in a group in a header", task.Chord(task.Group(task.Chain(two, task.Group(plus(1), plus(2))), two), sum.Rest()), int64(9)},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := s.get(c.sig); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%v is %v, expected %v", c.sig, got, c.want)
			}
		})
	}
	s.settled()
	if q := s.quarantined(); len(q) != 0 {
		t.Errorf("%d in quarantine", len(q))
	}
}

// TestOrderOfParts: the members of groups that end chains in a header come to the body in their order, each at its chain's place.
func TestOrderOfParts(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(t *testing.T, s *canvasSite) {
		Handle(s.mux, task.Define[task.Raw, any]("tasks.same"), func(_ context.Context, a task.Raw) (any, error) { return a.Args[0], nil })
		s.start(Config{Concurrency: 4})
		two := add.S(addArgs{1, 1})
		var members []task.Signature
		for i := range 7 {
			members = append(members, add.Rest(i))
		}
		members[3] = add.Rest(0).Then(add.Rest(3))
		members[4] = add.Rest(0).Then(task.Group(add.Rest(4), add.Rest(4)))
		members[5] = task.Chord(task.Group(add.Rest(2), add.Rest(1)), sum.Rest())
		ends := two.Then(task.Group(members...))
		got := s.get(task.Chord(task.Group(ends, two, ends), task.S("tasks.same")))
		want := ints(2, 3, 4, 5, 6, 6, 7, 8, 2, 2, 3, 4, 5, 6, 6, 7, 8)
		if !reflect.DeepEqual(flat(got), want) {
			t.Errorf("the body got %v, expected %v", got, want)
		}
	})
}

// TestAppliedTwice: a signature that is applied twice, at once, is two workflows: no task of one has the id of a task of the other.
func TestAppliedTwice(t *testing.T) {
	t.Parallel()
	twice := func(t *testing.T, s *site) {
		s.start(Config{Concurrency: 4})
		two := add.S(addArgs{1, 1})
		for name, sig := range map[string]task.Signature{
			"task":     two.Link(add.Rest(1), add.Rest(2)),
			"chain":    task.Chain(two, add.Rest(1), add.Rest(2)).Link(add.Rest(3)),
			"group":    task.Group(two, two.Then(add.Rest(1))),
			"chord":    task.Chord(task.Group(two, two.Then(task.Group(add.Rest(1), add.Rest(2)))), sum.Rest()).Link(add.Rest(1)),
			"callback": two.Link(task.Chord(task.Group(add.Rest(1), add.Rest(2)), sum.Rest())),
		} {
			before, _ := json.Marshal(sig)
			var all [2]map[string]bool
			var both sync.WaitGroup
			for i := range all {
				both.Go(func() {
					var err error
					if all[i], err = s.idsOf(sig); err != nil || len(all[i]) == 0 {
						t.Errorf("%s: %v, %v", name, all[i], err)
					}
				})
			}
			both.Wait()
			for id := range all[0] {
				if all[1][id] {
					t.Errorf("%s: both have %s", name, id)
				}
			}
			if after, _ := json.Marshal(sig); string(after) != string(before) {
				t.Errorf("%s was %s, is %s", name, before, after)
			}
		}
	}
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		s := newCanvasSite(t)
		twice(t, s.site)
	})
	t.Run("RabbitMQ", func(t *testing.T) {
		t.Parallel()
		s, _ := newRabbitSite(t, task.Config{})
		c := newCanvasSite(t) // for its tasks
		s.mux = c.mux
		twice(t, s)
	})
}

// idsOf applies a workflow, waits for it, and returns the ids of its tasks and groups and of all that was sent after them.
func (s *site) idsOf(sig task.Signature) (map[string]bool, error) {
	ctx := s.context()
	r, err := s.client.Apply(ctx, sig)
	if err != nil {
		return nil, err
	}
	if _, err := r.Get(ctx); err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	for r != nil {
		for d, err := range r.IterDeps(ctx, true) {
			if err != nil {
				return nil, err
			}
			ids[d.Result.ID()] = true
		}
		if r, err = r.Parent(ctx); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// flat is a list without lists in it: a backend that counts no parts tells the body of groups in the header as such.
func flat(v any) (all []any) {
	list, ok := v.([]any)
	if !ok {
		return []any{v}
	}
	for _, v := range list {
		all = append(all, flat(v)...)
	}
	return all
}

// TestCallbacks: link and link_error, also of what ends without a run.
func TestCallbacks(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4})
	r := s.apply(add.S(addArgs{1, 1}).Link(noted.Rest("a"), noted.Rest("b"), noted.S(task.Raw{Args: []any{"c"}}).Immutable()))
	var got []string
	for range 3 {
		got = append(got, fmt.Sprint(s.note()))
	}
	slices.Sort(got)
	if want := []string{"[2 a]", "[2 b]", "[c]"}; !reflect.DeepEqual(got, want) {
		t.Errorf("callbacks got %q, expected %q", got, want)
	}
	meta, err := r.Meta(s.context())
	if err != nil || len(meta.Children) != 1 || len(meta.Children[0].Children) != 3 {
		t.Errorf("children %+v, %v; expected a group of three", meta.Children, err)
	}
	for name, sig := range map[string]task.Signature{
		"failed":  broken.Rest(),
		"unknown": task.S("tasks.unheard_of"),
		"chain":   task.Chain(broken.Rest(), add.Rest(1)),
		"later":   task.Chain(add.S(addArgs{}), broken.Rest(), add.Rest(1)),
	} {
		r := s.apply(sig.LinkError(noted.Rest("e")))
		note := s.note()
		if len(note) != 2 || note[1] != "e" {
			t.Errorf("%s: error callback got %v", name, note)
		}
		if _, err := r.Get(s.context()); err == nil {
			t.Errorf("%s: %v did not fail", name, sig)
		}
	}
}

// TestFailuresAreTold: whoever waits for the end of a workflow hears when something before it fails.
func TestFailuresAreTold(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4})
	two := add.S(addArgs{1, 1})
	bad := task.SignatureOf(protocol.Signature{Task: "celery.chain", SubtaskType: "chain", Options: map[string]any{},
		Kwargs: map[string]any{"tasks": "x"}})
	for _, c := range []struct {
		name string
		sig  task.Signature
		want string
	}{
		{"first step", task.Chain(broken.Rest(), add.Rest(1), add.Rest(2)), "kaput"},
		{"before a chord", task.Chain(broken.Rest(), task.Group(add.Rest(1), add.Rest(2)), sum.Rest()), "kaput"},
		{"unknown task", task.Chain(two, task.S("tasks.unheard_of"), add.Rest(1)), "tasks.unheard_of"},
		{"part of a chord", task.Chord(task.Group(two, broken.Rest()), sum.Rest()), "kaput"},
		{"chain in a part", task.Chord(task.Group(two, task.Chain(broken.Rest(), add.Rest(1))), sum.Rest()), "kaput"},
		{"unknown part", task.Chord(task.Group(two, task.S("tasks.unheard_of")), sum.Rest()), "tasks.unheard_of"},
		{"chain after a chord", task.Chain(task.Group(two, broken.Rest()), sum.Rest(), add.Rest(1)), "kaput"},
		{"chord in a chord", task.Chord(task.Group(two, task.Chord(task.Group(broken.Rest(), two), sum.Rest())), sum.Rest()), "kaput"},
		{"expired part", task.Chord(task.Group(two, two.With(task.ExpiresAt(time.Now().Add(-time.Hour)))), sum.Rest()), "expired"},
		{"body", task.Chord(task.Group(two, two), broken.Rest()), "kaput"},
		{"callback that is none", two.Link(bad), "is not a list of signatures"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := s.apply(c.sig).Get(s.context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v, expected %q", c.sig, err, c.want)
			}
		})
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	with := func(name string, sig task.Signature) task.Signature {
		d := task.Define[task.Raw, int](name)
		Handle(s.mux, d, func(context.Context, task.Raw) (int, error) { return 0, task.Replace(sig) })
		return d.Rest()
	}
	two := add.S(addArgs{1, 1})
	byTask := with("by.task", two)
	byChain := with("by.chain", task.Chain(two, add.Rest(3)))
	byChord := with("by.chord", task.Chord(task.Group(two, two), sum.Rest()))
	twice := with("twice", byChain)
	byNothing := with("by.nothing", task.Chain())
	s.start(Config{Concurrency: 4})
	for _, c := range []struct {
		sig  task.Signature
		want any
	}{
		{byTask, int64(2)}, {byChain, int64(5)}, {byChord, int64(4)}, {twice, int64(5)},
		{task.Chain(byChain, add.Rest(10)), int64(15)},
		{task.Chord(task.Group(byChain, byTask, two), sum.Rest()), int64(9)},
		{task.Chord(task.Group(byChord, task.Chain(two, byTask)), sum.Rest()), int64(6)},
	} {
		if got := s.get(c.sig); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v is %v, expected %v", c.sig, got, c.want)
		}
	}
	s.apply(byChain.Link(noted.Rest()))
	if note := s.note(); !reflect.DeepEqual(note, ints(5)) {
		t.Errorf("callback of what was replaced got %v", note)
	}
	if _, err := s.apply(byNothing).Get(s.context()); err == nil || !strings.Contains(err.Error(), "no task") {
		t.Errorf("replaced by nothing: %v", err)
	}
}

// TestReplaceByGroup: the result of a task that a group replaces is the list of its members' results.
func TestReplaceByGroup(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	two := add.S(addArgs{1, 1})
	Handle(s.mux, replaces, func(context.Context, task.Raw) (int, error) {
		return 0, task.Replace(task.Group(two, add.S(addArgs{2, 2})))
	})
	s.start(Config{Concurrency: 4})
	if got := s.get(replaces.Rest()); !reflect.DeepEqual(got, ints(2, 4)) {
		t.Errorf("%v", got)
	}
	if got := s.get(task.Chain(replaces.Rest(), sum.Rest())); got != int64(6) {
		t.Errorf("%v", got)
	}
	if got := s.get(task.Chain(task.Starmap(task.S("tasks.add"), []int{1, 1}, []int{2, 2}), sum.Rest())); got != int64(6) {
		t.Errorf("starmap: %v", got)
	}
	if got := s.get(task.Chunks(task.S("tasks.add"), 2, []int{1, 1}, []int{2, 2}, []int{3, 3})); !reflect.DeepEqual(got, []any{ints(2, 4), ints(6)}) {
		t.Errorf("chunks: %v", got)
	}
}

var replaces = task.Define[task.Raw, int]("tasks.replaces")

// TestWorkflowsThatCannotBeSent: a body, a replacement and a part that lead to where nothing can be sent end as failures.
func TestWorkflowsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	nowhere := []task.SendOption{task.Exchange("nowhere"), task.RoutingKey("x")}
	two := add.S(addArgs{1, 1})
	Handle(s.mux, replaces, func(context.Context, task.Raw) (int, error) { return 0, task.Replace(two.With(nowhere...)) })
	s.start(Config{Concurrency: 4})
	for name, sig := range map[string]task.Signature{
		"next step":           task.Chain(two, add.Rest(1).With(nowhere...), add.Rest(1)),
		"body":                task.Chord(task.Group(two, two), sum.Rest().With(nowhere...)),
		"replacement":         replaces.Rest(),
		"replacement of part": task.Chord(task.Group(two, replaces.Rest()), sum.Rest()),
	} {
		if v, err := s.apply(sig).Get(s.context()); err == nil {
			t.Errorf("%s: %v, expected a failure", name, v)
		}
	}
}

// TestErrbacksOfBodies: those of a body that is a workflow, and of parts and bodies that fail together, are all called.
func TestErrbacksOfBodies(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4})
	two := add.S(addArgs{1, 1})
	for name, sig := range map[string]task.Signature{
		"chain":       task.Chain(task.Group(broken.Rest(), two), sum.Rest(), add.Rest(1)).LinkError(noted.Rest("e")),
		"chain body":  task.Chord(task.Group(broken.Rest(), two), task.Chain(sum.Rest(), add.Rest(1)).LinkError(noted.Rest("e"))),
		"group body":  task.Chord(task.Group(broken.Rest(), two), task.Group(sum.Rest(), sum.Rest())).LinkError(noted.S(task.Raw{Args: []any{"x", "e"}})),
		"plain chord": task.Chord(task.Group(broken.Rest(), two), sum.Rest()).LinkError(noted.Rest("e")),
	} {
		s.apply(sig)
		if note := s.note(); len(note) != 2 || note[1] != "e" {
			t.Errorf("%s: error callback got %v", name, note)
		}
	}
	chord := func(mark string) task.Signature {
		return task.Chord(task.Group(two, two), noted.Rest(mark)).Immutable()
	}
	s.apply(task.Chord(task.Group(two, broken.Rest().LinkError(chord("part"))), sum.Rest()).LinkError(chord("body")))
	var marks []string
	for len(marks) < 2 {
		if note := s.note(); len(note) == 2 && note[1] != "e" {
			marks = append(marks, fmt.Sprint(note[1]))
		}
	}
	slices.Sort(marks)
	if !reflect.DeepEqual(marks, []string{"body", "part"}) {
		t.Errorf("called by %v, expected by part and body", marks)
	}
	nested := task.Chord(task.Group(two, task.Chord(task.Group(broken.Rest(), two), sum.Rest())), sum.Rest()).LinkError(noted.Rest("once"))
	if _, err := s.apply(nested).Get(s.context()); err == nil {
		t.Error("a chord with a failed chord in its header did not fail")
	}
	if note := s.note(); len(note) != 2 || note[1] != "once" {
		t.Errorf("error callback of chords in chords got %v", note)
	}
	ends := s.apply(task.Chord(task.Group(broken.Rest(), two), task.Group(sum.Rest(), sum.Rest())))
	if e := s.failure(ends); e.Type != "Exception" || !strings.Contains(e.Error(), "kaput") {
		t.Errorf("a body that is a group has failed with %v, expected the error of the part", e)
	}
	failed := s.apply(task.Chord(task.Group(broken.Rest(), two), sum.Rest()).LinkError(noted.Rest("child")))
	if _, err := failed.Get(s.context()); err == nil {
		t.Error("a chord with a failed part did not fail")
	}
	s.note()
	children, err := failed.Children(s.context())
	if err != nil || len(children) != 1 {
		t.Fatalf("children of a body that has failed are %v, %v; expected a group", children, err)
	}
	if group, ok := children[0].Group(); !ok || len(group.Results()) != 1 {
		t.Errorf("child of a body that has failed is %v; expected the group of its error callback", children[0])
	}
	s.settled()
	for len(s.came) > 0 {
		if note := s.note(); len(note) != 2 || note[1] != "e" { // a body that is a group calls once for each member, maybe late
			t.Errorf("it was called again, with %v", note)
		}
	}
}

// TestRounds: a task that goes on by replacing itself, with a chord in each round.
func TestRounds(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	rounds := task.Define[addArgs, int]("tasks.rounds")
	two := add.S(addArgs{1, 1})
	Handle(s.mux, rounds, func(_ context.Context, a addArgs) (int, error) {
		if a.Y == 0 {
			return a.X, nil
		}
		return 0, task.Replace(task.Chain(two, task.Group(add.Rest(a.X), add.Rest(0)), sum.Rest(), rounds.Rest(a.Y-1)))
	})
	s.start(Config{Concurrency: 4})
	if got := s.get(rounds.S(addArgs{0, 4})); got != int64(16) {
		t.Errorf("after four rounds %v, expected 16", got)
	}
}

// TestOddWorkflows: what Celery leaves waiting for ever, or gives what it should not have.
func TestOddWorkflows(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4})
	two := add.S(addArgs{1, 1})
	if got := s.get(task.Chord(task.Group(task.Chain(two, task.Group()), two), sum.Rest())); got != int64(4) {
		t.Errorf("an empty group at the end of a part: %v", got)
	}
	if got := s.get(task.Chord(task.Group(task.Group(), task.Group()), sum.Rest())); got != int64(0) {
		t.Errorf("empty groups as parts: %v", got)
	}
	if got := s.get(task.Group(add.Rest(1), add.Rest(2)).Args(5)); !reflect.DeepEqual(got, ints(6, 7)) {
		t.Errorf("arguments of a group: %v", got)
	}
	s.apply(two.Link(task.Chain(noted.S(task.Raw{Args: []any{"mine"}}), noted.Rest()).Immutable()))
	if note := s.note(); !reflect.DeepEqual(note, []any{"mine"}) {
		t.Errorf("the first step of an immutable chain got %v", note)
	}
	late := two.With(task.ExpiresAt(time.Now().Add(-time.Hour)))
	if _, err := s.apply(task.Chain(late, add.Rest(1), add.Rest(2))).Get(s.context()); !errors.Is(err, task.ErrRevoked) {
		t.Errorf("a chain whose first step has expired: %v", err)
	}
	if err := task.Chain(two, two).Kwargs(map[string]any{"x": 1}).Err(); err == nil {
		t.Error("a chain takes keyword arguments")
	}
}
