package protocol_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

func TestSignatureFromValue(t *testing.T) {
	t.Parallel()
	link := map[string]any{"task": "l", "args": []any{}, "kwargs": map[string]any{}, "options": map[string]any{}}
	tests := []struct {
		name, dict string
		want       protocol.Signature
	}{
		{"all keys", `{"task": "t", "args": [1], "kwargs": {"k": null}, "options": {"task_id": "i", "root_id": null}, "subtask_type": "chain", "immutable": true}`,
			protocol.Signature{Task: "t", Args: []any{int64(1)}, Kwargs: map[string]any{"k": nil},
				Options: map[string]any{"task_id": "i", "root_id": nil}, SubtaskType: "chain", Immutable: true}},
		{"task only", `{"task": "t"}`,
			protocol.Signature{Task: "t", Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{}}},
		{"nulls", `{"task": "t", "args": null, "kwargs": null, "options": null, "subtask_type": null, "immutable": null}`,
			protocol.Signature{Task: "t", Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{}}},
		{"unknown key", `{"task": "t", "chord_size": 3}`,
			protocol.Signature{Task: "t", Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{}, Extra: map[string]any{"chord_size": int64(3)}}},
		{"single links", `{"task": "t", "options": {"link": {"task": "l", "args": [], "kwargs": {}, "options": {}}, "link_error": {"task": "l", "args": [], "kwargs": {}, "options": {}}}}`,
			protocol.Signature{Task: "t", Args: []any{}, Kwargs: map[string]any{}, Options: map[string]any{"link": []any{link}, "link_error": []any{link}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, err := serialization.DecodeJSON([]byte(tt.dict))
			if err != nil {
				t.Fatal(err)
			}
			got, err := protocol.SignatureFromValue(v)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			unchanged, _ := serialization.DecodeJSON([]byte(tt.dict))
			if diff := cmp.Diff(unchanged, v); diff != "" {
				t.Errorf("the value was changed: %s", diff)
			}
			again, err := protocol.SignatureFromValue(got.Value())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("after Value: %s", diff)
			}
		})
	}
	for _, dict := range []string{`null`, `[]`, `"t"`, `{}`, `{"task": ""}`, `{"task": null}`, `{"task": 5}`, `{"task": "t", "args": {}}`,
		`{"task": "t", "kwargs": []}`, `{"task": "t", "options": "x"}`, `{"task": "t", "subtask_type": 5}`, `{"task": "t", "immutable": 1}`} {
		v, err := serialization.DecodeJSON([]byte(dict))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := protocol.SignatureFromValue(v); err == nil {
			t.Errorf("%s is %+v", dict, got)
		}
	}
}

func TestSignatureValueHasAllKeys(t *testing.T) {
	t.Parallel()
	data, err := json.Marshal(protocol.Signature{Task: "t", Extra: map[string]any{"task": "stolen", "x": 1}}.Value())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"args":[],"immutable":false,"kwargs":{},"options":{},"subtask_type":null,"task":"t","x":1}`
	if string(data) != want {
		t.Errorf("got %s", data)
	}
}
