package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	_ "github.com/gelery/gelery/backends/filesystem"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// apply sends a workflow.
func (s *site) apply(sig task.Signature) *task.Result[any] {
	s.Helper()
	r, err := s.client.Apply(s.context(), sig)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

func (s *site) want(r *task.Result[any], want any) {
	s.Helper()
	got, err := r.Get(s.context())
	if err != nil {
		s.Error(err)
	} else if d := cmp.Diff(want, got); d != "" {
		s.Error(d)
	}
}

func TestBuiltinTasks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("up", func(text string) (string, error) { return strings.ToUpper(text), nil })
	s.mux.Func("where", func(ctx context.Context, _ any) (string, error) {
		info, _ := task.FromContext(ctx)
		return info.ID, nil
	})
	s.mux.Func("fail", func(any) error { return task.AsPython(nil, "builtins", "KeyError", "k") })
	s.mux.Func("celery.chunks", func() (string, error) { return "mine", nil })
	s.start(Config{})

	s.want(s.apply(task.Map(task.S("up"), "a", "b")), []any{"A", "B"})
	s.want(s.apply(task.Map[string](task.S("up"))), []any{})
	s.want(s.apply(task.Starmap(task.S("tasks.add"), []int{1, 2}, []int{3, 4})), []any{int64(3), int64(7)})
	s.want(s.apply(task.Chunks(task.S("tasks.add"), 2, []int{1, 2}, []int{3, 4}, []int{5, 6})), []any{[]any{int64(3), int64(7)}, []any{int64(11)}})
	where := s.apply(task.Map(task.S("where"), 1))
	s.want(where, []any{where.ID()})
	s.want(s.send("celery.accumulate", 1, "x"), []any{int64(1), "x"})
	for i, want := range map[int]any{0: "a", 1: "b", -1: "b"} {
		s.want(s.apply(task.S("celery.accumulate", "a", "b").Kwargs(map[string]any{"index": i})), want)
	}
	s.want(s.send("celery.backend_cleanup"), nil)
	s.want(s.send("celery.chunks"), "mine")

	up := task.S("up")
	for _, tt := range []struct {
		class string
		call  task.Signature
	}{
		{"NotRegistered", task.Map(task.S("nobody"), 1)},
		{"KeyError", task.Map(task.S("fail"), 1)},
		{"TypeError", task.S("celery.map")},
		{"TypeError", task.S("celery.map", up, 5)},
		{"TypeError", task.S("celery.map", "up", []any{1})},
		{"TypeError", task.Starmap(up, 5)},
		{"TypeError", task.Starmap(up, []string{"too", "many"})},
		{"IndexError", task.S("celery.accumulate", 1).Kwargs(map[string]any{"index": 1})},
		{"IndexError", task.S("celery.accumulate", 1).Kwargs(map[string]any{"index": -2})},
		{"TypeError", task.S("celery.accumulate", 1).Kwargs(map[string]any{"index": "0"})},
	} {
		if e := s.failure(s.apply(tt.call)); e.Type != tt.class {
			t.Errorf("%s: %v", tt.call, e)
		}
	}
	for name, class := range map[string]string{"celery.chain": "NotImplementedError", "celery.group": "TypeError"} {
		if e := s.failure(s.send(name, 1)); e.Type != class {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// What Celery 3 has sent as messages.
func TestLegacyCanvasTasks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.mux.Func("sum", func(all []int) (int, error) {
		n := 0
		for _, x := range all {
			n += x
		}
		return n, nil
	})
	s.start(Config{})
	members := []any{task.S("tasks.add", 1), task.S("tasks.add", 2)}
	for _, tt := range []struct {
		name string
		args []any
		want any
	}{
		{"celery.group", []any{members, []any{}, "some group", []any{10}}, []any{int64(11), int64(12)}},
		{"celery.chord", []any{members, task.S("sum"), []any{10}}, int64(23)},
	} {
		tuple, err := s.send(tt.name, tt.args...).Get(s.context())
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.client.ResultFromTuple(tuple)
		if err != nil {
			t.Fatalf("%s returned %v: %v", tt.name, tuple, err)
		}
		s.want(r, tt.want)
	}
}

// A backend that counts no chords.
func TestChordUnlock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	client, err := task.Dial(t.Context(), task.Config{Broker: "memory://" + protocol.NewID(), Backend: "file://" + t.TempDir(), Logger: s.client.Config().Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	s.client = client
	told := make(chan string, 1)
	release := make(chan struct{})
	s.mux.Func("late", func() (string, error) { <-release; return "late", nil })
	s.mux.Func("body", func(all []any, more string) ([]any, error) { return append(all, more), nil })
	s.mux.Func("fail", func() error { return errors.New("no") })
	s.mux.Func("tell", func(id string) error { told <- id; return nil })
	s.start(Config{Concurrency: 8, ChordRetryInterval: 10 * time.Millisecond, ChordJoinTimeout: time.Minute})

	body := task.S("body", "end")
	inner := task.Group(task.S("tasks.add", 3, 4), task.S("tasks.add", 5, 6))
	waiting := s.apply(task.Chord(task.Group(task.S("tasks.add", 1, 2), task.S("late")), body))
	nested := s.apply(task.Chord(task.Group(task.S("tasks.add", 1, 2), task.Chain(task.S("tasks.add", 1, 1), task.S("tasks.add", 1))), body))
	s.want(nested, []any{int64(3), int64(3), "end"})
	// A header with a group in it, as Python sends it.
	tuples := []any{}
	for _, sig := range []task.Signature{task.S("tasks.add", 1, 2), inner} {
		tuple := s.apply(sig).Tuple()
		tuples = append(tuples, tuple.Value())
	}
	id := protocol.NewID()
	s.apply(task.S("celery.chord_unlock", "g", body.With(task.ID(id))).Kwargs(map[string]any{"result": tuples, "interval": 0.01, "max_retries": nil}))
	s.want(s.client.Result(id), []any{int64(3), []any{int64(7), int64(11)}, "end"})

	failing := s.apply(task.Chord(task.Group(task.S("tasks.add", 1, 2), task.S("fail")), body.With(task.LinkError(task.S("tell")))))
	if e := s.failure(s.client.Result(failing.ID())); e.Type != "ChordError" || !strings.Contains(e.Error(), "Dependency ") ||
		!strings.Contains(e.Error(), " raised Exception('no')") {
		t.Error(e)
	}
	select {
	case got := <-told:
		if got != failing.ID() {
			t.Errorf("the error callback was told of %s, not of %s", got, failing.ID())
		}
	case <-s.context().Done():
		t.Error("the error callback was not called")
	}
	ends := s.apply(task.Chord(task.Group(task.S("tasks.add", 1, 2), task.S("fail")), task.Group(task.S("body", "a"), task.S("body", "b"))))
	if e := s.failure(ends); e.Type != "Exception" || !strings.Contains(e.Error(), "no") {
		t.Errorf("a body that is a group has failed with %v, expected the error of the part", e)
	}
	for _, bad := range []any{nil, "x", []any{"x"}, []any{[]any{[]any{"", nil}, nil}}} {
		id := protocol.NewID()
		s.apply(task.S("celery.chord_unlock", "g", body.With(task.ID(id))).Kwargs(map[string]any{"result": bad}))
		if e := s.failure(s.client.Result(id)); e.Type != "ChordError" || !strings.Contains(e.Error(), "Join error") {
			t.Errorf("%v: %v", bad, e)
		}
	}
	if done, err := waiting.Ready(s.context()); done || err != nil {
		t.Errorf("a chord is done of which a part still runs: %v", err)
	}
	close(release)
	s.want(waiting, []any{int64(3), "late", "end"})
}
