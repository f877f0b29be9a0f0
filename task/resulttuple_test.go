package task

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
)

func TestResultTuple(t *testing.T) {
	t.Parallel()
	_, client := dialMemory(t)
	header := &protocol.ResultTuple{ID: "g", Parent: &protocol.ResultTuple{ID: "first"}}
	header.Children = []protocol.ResultTuple{{ID: "a", Parent: header.Parent}, {ID: "b", Parent: header.Parent}}
	for name, tuple := range map[string]protocol.ResultTuple{
		"task":        {ID: "a"},
		"chain":       {ID: "b", Parent: &protocol.ResultTuple{ID: "a"}},
		"group":       {ID: "g", Children: []protocol.ResultTuple{{ID: "a"}, {ID: "b"}}},
		"empty group": {ID: "g", Children: []protocol.ResultTuple{}},
		"chord":       {ID: "body", Parent: header},
	} {
		text, err := json.Marshal(tuple.Value())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []any{tuple, &tuple, tuple.Value(), text, json.RawMessage(text)} {
			r, err := client.ResultFromTuple(v)
			if err != nil {
				t.Fatalf("%s from %T: %v", name, v, err)
			}
			if diff := cmp.Diff(tuple, r.Tuple()); diff != "" {
				t.Errorf("%s from %T: %s", name, v, diff)
			}
			if again, err := json.Marshal(r); err != nil || string(again) != string(text) {
				t.Errorf("%s from %T as JSON: %s, %v, want %s", name, v, again, err, text)
			}
		}
	}
	long := protocol.ResultTuple{ID: "first"}
	for range 999 {
		long = protocol.ResultTuple{ID: "step", Parent: new(long)}
	}
	text, err := json.Marshal(&Result[any]{client.handleOf(&long)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := client.ResultFromTuple(text)
	if err != nil {
		t.Fatal(err)
	}
	steps := 1
	for ; steps < 1000; steps++ {
		parent, err := r.Parent(t.Context())
		if err != nil || parent == nil {
			break
		}
		r = parent
	}
	if steps != 1000 || r.ID() != "first" {
		t.Errorf("the result of a chain of 1,000 leads back %d steps, to %s", steps, r.ID())
	}
	shared := client.handleOf(header)
	if shared.members[0].parent != shared.members[1].parent || shared.parent != shared.members[0].parent {
		t.Error("one parent became several")
	}
	for _, v := range []any{nil, "id", []any{"id"}, []any{[]any{"id", nil}, "x"}, []byte("{"), []byte(`[["", null], null]`), 7} {
		if r, err := client.ResultFromTuple(v); err == nil {
			t.Errorf("%v is the tuple of %s", v, r.ID())
		}
	}
}
