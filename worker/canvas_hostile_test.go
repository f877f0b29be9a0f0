package worker

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// onBothBackends runs a test where the backend counts the parts of chords, and where celery.chord_unlock looks at them.
func onBothBackends(t *testing.T, test func(t *testing.T, s *canvasSite)) {
	t.Run("counted", func(t *testing.T) {
		t.Parallel()
		test(t, newCanvasSite(t))
	})
	t.Run("unlocked", func(t *testing.T) {
		t.Parallel()
		s := newCanvasSite(t)
		client, err := task.Dial(t.Context(), task.Config{Broker: "memory://" + protocol.NewID(), Backend: "file://" + t.TempDir(),
			Logger: s.client.Config().Logger})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close(context.Background()) })
		s.client = client
		test(t, s)
	})
}

// wantFailure waits for a task to fail in a way.
func (s *canvasSite) wantFailure(what string, r *task.Result[any], kind, text string) {
	s.Helper()
	if e := s.failure(r); e.Type != kind || !strings.Contains(e.Error(), text) {
		s.Errorf("%s has failed with %v, expected %s: …%s", what, e, kind, text)
	}
}

func TestUnknownTaskInAWorkflow(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(_ *testing.T, s *canvasSite) {
		s.start(Config{Concurrency: 4, ChordRetryInterval: 10 * time.Millisecond})
		two, unknown := add.S(addArgs{1, 1}), task.S("no.such.task")
		chain := s.apply(task.Chain(two, unknown, add.Rest(1), add.Rest(1)).LinkError(noted.Rest("chain")))
		s.wantFailure("the last step", chain, "NotRegistered", "no.such.task")
		middle := chain
		for range 2 {
			parent, err := middle.Parent(s.context())
			if err != nil {
				s.Fatal(err)
			}
			middle = parent
		}
		s.wantFailure("the unknown step", middle, "NotRegistered", "no.such.task")
		if note := s.note(); len(note) != 2 || note[0] != middle.ID() {
			s.Errorf("the error callback got %v, not %s", note, middle.ID())
		}
		chord := s.apply(task.Chord(task.Group(two, unknown, two.Then(unknown, add.Rest(1))), sum.Rest()).LinkError(noted.Rest("chord")))
		body := s.client.Result(chord.ID()) // without its parents, whose error a chord's own Get returns
		s.wantFailure("the body", body, "ChordError", "NotRegistered('no.such.task')")
		if note := s.note(); len(note) != 2 || note[0] != chord.ID() {
			s.Errorf("the error callback of the chord got %v", note)
		}
		s.wantFailure("the body after it", s.client.Result(s.apply(task.Chain(task.Group(two, two), unknown, add.Rest(1))).ID()), "NotRegistered", "no.such.task")
	})
}

// asPart is a message of a part of a chord.
func asPart(group string, index int, body task.Signature, embed string) func(*protocol.Message) {
	text, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return func(m *protocol.Message) {
		m.Headers.Group, m.Headers.GroupIndex = group, &index
		if embed == "" {
			embed = `{"chord": ` + string(text) + `}`
		}
		m.Body = []byte(`[[1, 2], {}, ` + embed + `]`)
	}
}

// TestChordWithoutSize: a chord of which no size is stored fails after a while, one whose size comes late goes on.
func TestChordWithoutSize(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4, ChordSizeTimeout: 50 * time.Millisecond})
	counter := s.client.Backend().(backends.ChordCounter)
	body := func() task.Signature { return sum.Rest().With(task.ID(protocol.NewID())) }
	ofSizeless := body().LinkError(noted.Rest("sizeless"))
	wire, _ := ofSizeless.Wire()
	id, _ := wire.Options["task_id"].(string)
	for i := range 3 {
		s.raw(asPart("sizeless", i, ofSizeless, ""))
	}
	s.wantFailure("the body of a chord without a size", s.client.Result(id), "ChordError", "size was not stored")
	if note := s.note(); len(note) != 2 || note[0] != id {
		s.Errorf("the error callback got %v, not %s", note, id)
	}
	s.end()
	// A size comes when all parts have been counted: the first of them is counted again.
	s.done = make(chan error, 1)
	s.start(Config{Concurrency: 4, ChordSizeTimeout: time.Hour})
	late := body()
	wire, _ = late.Wire()
	id, _ = wire.Options["task_id"].(string)
	s.raw(asPart("late", 0, late, ""))
	u := s.worker.unsized
	s.eventually("a part without a size is watched", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.groups["late"]
	})
	if err := counter.StartChords(s.context(), []backends.ChordSize{{Group: "late", Size: 1}}); err != nil {
		s.Fatal(err)
	}
	u.mu.Lock()
	u.parts[0].due = time.Now()
	u.mu.Unlock()
	u.came <- struct{}{}
	if v, err := s.client.Result(id).Get(s.context()); err != nil || v != int64(3) {
		s.Errorf("a chord whose size came late: %v, %v", v, err)
	}
}

// TestPartsThatCannotBeRead: whoever waits for the rest of a workflow is told when one of its messages cannot be read.
func TestPartsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := newCanvasSite(t)
	s.start(Config{Concurrency: 4})
	counter := s.client.Backend().(backends.ChordCounter)
	for name, break_ := range map[string]func(*protocol.Message){
		"no JSON":              func(m *protocol.Message) { m.Body = []byte(`{{{`) },
		"args that are none":   func(m *protocol.Message) { m.Body = []byte(strings.Replace(string(m.Body), "[1, 2]", "7", 1)) },
		"embed that is none":   func(m *protocol.Message) { m.Body = []byte(`[[], {}, 1]`) },
		"chord that is none":   func(m *protocol.Message) { m.Body = []byte(`[[], {}, {"chord": 1}]`) },
		"nested too deep":      func(m *protocol.Message) { m.Body = []byte(strings.Repeat("[", 10_000)) },
		"compressed, it says":  func(m *protocol.Message) { m.Headers.Compression = "application/x-gzip" },
		"content not accepted": func(m *protocol.Message) { m.ContentType = "application/x-python-serialize" },
	} {
		group := protocol.NewID()
		body := sum.Rest().With(task.ID(protocol.NewID()))
		wire, _ := body.Wire()
		id, _ := wire.Options["task_id"].(string)
		if err := counter.StartChords(s.context(), []backends.ChordSize{{Group: group, Size: 2}}); err != nil {
			s.Fatal(err)
		}
		var bad string
		s.raw(func(m *protocol.Message) {
			asPart(group, 0, body, "")(m)
			break_(m)
			bad = m.Headers.ID
		})
		if _, err := s.client.Result(bad).Get(s.context()); err == nil {
			s.Errorf("%s: the part has not failed", name)
		}
		s.raw(asPart(group, 1, body, ""))
		s.wantFailure(name+": the body", s.client.Result(id), "ChordError", bad)
	}
	// What can be read of a message that cannot be run tells the rest of its chain.
	for name, text := range map[string]string{
		"args that are none":    `[7, {}, {"chain": [STEP]}]`,
		"a step that is none":   `[[1, 2], {}, {"chain": [STEP, 5]}]`,
		"callbacks that are no": `[[1, 2], {}, {"callbacks": 3, "chain": [STEP]}]`,
	} {
		id := protocol.NewID()
		step := `{"task": "tasks.add", "args": [1], "options": {"task_id": "` + id + `"}}`
		s.raw(func(m *protocol.Message) { m.Body = []byte(strings.Replace(text, "STEP", step, 1)) })
		s.wantFailure(name+": the next step", s.client.Result(id), "InvalidTaskError", "malformed")
	}
}

// TestBodiesThatAreNone: a chord whose body cannot be sent, or is no signature, tells whoever waits.
func TestBodiesThatAreNone(t *testing.T) {
	t.Parallel()
	onBothBackends(t, func(_ *testing.T, s *canvasSite) {
		s.start(Config{Concurrency: 4, ChordRetryInterval: 10 * time.Millisecond})
		two := add.S(addArgs{1, 1})
		loop := sum.Rest()
		for range 130 { // deeper than any workflow may be
			loop = task.SignatureOf(protocol.Signature{Task: "celery.chain", SubtaskType: "chain", Kwargs: map[string]any{"tasks": []any{mustValue(loop)}}})
		}
		id := protocol.NewID()
		wire, err := two.Wire()
		if err != nil {
			s.Fatal(err)
		}
		wire.Options = map[string]any{"task_id": id, "chain": []any{mustValue(loop)}}
		s.apply(task.SignatureOf(wire))
		s.wantFailure("a task before what is nested too deep", s.client.Result(id), "CallbackError", "nested deeper")
		for name, sig := range map[string]task.Signature{
			"a chain that contains itself": task.Chain(two, loop),
			"a body that does":             task.Chord(task.Group(two), loop),
		} {
			if _, err := s.client.Apply(s.context(), sig); err == nil || !strings.Contains(err.Error(), "nested deeper") {
				s.Errorf("%s: %v", name, err)
			}
		}
	})
}

func mustValue(sig task.Signature) any {
	wire, err := sig.Wire()
	if err != nil {
		panic(err)
	}
	return wire.Value()
}
