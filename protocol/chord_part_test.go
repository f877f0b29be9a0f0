package protocol_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
)

func TestChordPart(t *testing.T) {
	t.Parallel()
	const before = "before"
	for _, name := range []string{"json", "msgpack", "yaml"} {
		s := serializer(t, name)
		var keys []string
		for _, m := range goldenResults() {
			if !m.Status.Ready() {
				continue
			}
			part, key, err := protocol.AppendChordPart([]byte(before), m, s)
			if err != nil || !strings.HasPrefix(string(part), before) {
				t.Fatal(string(part), err)
			}
			part = part[len(before):]
			keys = append(keys, string(part[:key]))
			got, err := protocol.DecodeChordPart(part, s)
			want := &protocol.ResultMeta{TaskID: m.TaskID, Status: m.Status, Result: m.Result, Exception: m.Exception}
			if d := cmp.Diff(want, got); d != "" || err != nil {
				t.Errorf("%s: %s %v", name, d, err)
			}
		}
		other, _, err := protocol.AppendChordPart(nil, &protocol.ResultMeta{TaskID: resultID + "1", Status: protocol.Success}, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range keys {
			if key != keys[0] || !strings.Contains(key, resultID) || strings.HasPrefix(string(other), key) {
				t.Errorf("%s: keys %q, of another task %q", name, keys, other)
			}
		}
	}
}

func TestChordPartRefuses(t *testing.T) {
	t.Parallel()
	s := serializer(t, "json")
	for _, m := range []*protocol.ResultMeta{{Status: protocol.Success}, {TaskID: "a"}, {TaskID: "a", Status: protocol.Failure},
		{TaskID: "a", Status: protocol.Success, Result: func() {}}} {
		if part, _, err := protocol.AppendChordPart(nil, m, s); err == nil {
			t.Errorf("%+v became %s", m, part)
		}
	}
	for _, text := range []string{"", "[", "5", "{}", "[]", `[1, "a", "SUCCESS"]`, `[1, "a", "SUCCESS", 1, 2]`, `[1, "", "SUCCESS", 1]`,
		`[1, 5, "SUCCESS", 1]`, `[1, "a", "", 1]`, `[1, "a", null, 1]`} {
		if m, err := protocol.DecodeChordPart([]byte(text), s); err == nil {
			t.Errorf("%s became %+v", text, m)
		}
	}
}
