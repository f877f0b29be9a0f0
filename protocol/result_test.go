package protocol_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

const resultID = "aaaaaaaa-0000-4000-8000-000000000001"

// goldenResults is what testdata/generate.py stored.
func goldenResults() map[string]*protocol.ResultMeta {
	started := map[string]any{"pid": int64(1), "hostname": "celery@host"}
	return map[string]*protocol.ResultMeta{
		"success": {TaskID: resultID, Status: protocol.Success, Result: int64(5), DateDone: goldenTime},
		"success_tree": {TaskID: resultID, Status: protocol.Success, DateDone: goldenTime, GroupID: "g", ParentID: "p",
			Result: map[string]any{"a": []any{int64(1), 2.5, nil, "é\nstatus: SUCCESS\n"}}},
		"failure": {TaskID: resultID, Status: protocol.Failure, DateDone: goldenTime, Traceback: "Traceback:\nstatus: SUCCESS\n",
			Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"bad", int64(42)}}},
		"nested_class": {TaskID: resultID, Status: protocol.Failure, DateDone: goldenTime,
			Exception: &protocol.Exception{Type: "Inner.Err", Module: "__main__"}},
		"started":    {TaskID: resultID, Status: protocol.Started, Result: started},
		"retry_bare": {TaskID: resultID, Status: protocol.Retry},
		"extended": {TaskID: resultID, Status: protocol.Success, Result: int64(5), DateDone: goldenTime,
			Extended: &protocol.ExtendedMeta{Name: "tasks.add", Args: []any{int64(1), int64(2)}, Kwargs: map[string]any{"k": int64(1)},
				Worker: "celery@host", Retries: 1, Queue: "celery", StampedHeaders: []string{"st"}, Stamps: map[string]any{"st": "v"}}},
	}
}

func serializer(t testing.TB, name string) serialization.Serializer {
	t.Helper()
	s, ok := serialization.Lookup(name)
	if !ok {
		t.Fatalf("no serializer %s", name)
	}
	return s
}

func TestResultGolden(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		g := loadGolden(t, version)
		for name, text := range g.Results {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				base, format, _ := strings.Cut(name, ".")
				s, data := serializer(t, format), resultBytes(text)
				want := goldenResults()[base]
				if version == "5.2.7" && want.Extended != nil { // it knows no stamps
					want.Extended.StampedHeaders, want.Extended.Stamps = nil, nil
				}
				m, err := protocol.DecodeResult(data, s)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, m); diff != "" {
					t.Error(diff)
				}
				if got := isKnownSuccess(data, format); got != (m.Status == protocol.Success) {
					t.Errorf("recognition of celery's is %v", got)
				}
				out, err := protocol.AppendResult(nil, m, s)
				if err != nil {
					t.Fatal(err)
				}
				if got := isKnownSuccess(out, format); got != (m.Status == protocol.Success) {
					t.Errorf("recognition of ours is %v: %q", got, out)
				}
				again, err := protocol.DecodeResult(out, s)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(m, again); diff != "" {
					t.Errorf("after a round trip: %s", diff)
				}
			})
		}
	}
}

// The order of the keys is Python's, and status is the first: stored results are recognized by it.
func TestAppendResultJSONBytes(t *testing.T) {
	t.Parallel()
	g := loadGolden(t, "5.6.3")
	for _, name := range []string{"success", "retry_bare", "nested_class", "extended"} {
		out, err := protocol.AppendResult([]byte("before"), goldenResults()[name], serialization.JSON)
		if err != nil {
			t.Fatal(err)
		}
		want := "before" + string(resultBytes(g.Results[name+".json"]))
		// Only the spacing inside values is the serializer's own.
		squeeze := strings.NewReplacer(", ", ",", ": ", ":")
		if diff := cmp.Diff(squeeze.Replace(want), squeeze.Replace(string(out))); diff != "" {
			t.Errorf("%s: (-celery +gelery)\n%s", name, diff)
		}
	}
}

func TestAppendResultMsgPackBytes(t *testing.T) {
	t.Parallel()
	g := loadGolden(t, "5.6.3")
	for _, name := range []string{"success", "retry_bare", "extended"} {
		out, err := protocol.AppendResult(nil, goldenResults()[name], serialization.MsgPack)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(resultBytes(g.Results[name+".msgpack"]), out); diff != "" {
			t.Errorf("%s: (-celery +gelery)\n%s", name, diff)
		}
	}
}

func TestAppendResultMsgPackLargeMap(t *testing.T) {
	t.Parallel()
	m := goldenResults()["extended"]
	m.Extended.Stamps = map[string]any{}
	m.Extended.StampedHeaders = nil
	for _, name := range []string{"a", "b", "c", "status", "a"} {
		m.Extended.StampedHeaders = append(m.Extended.StampedHeaders, name)
		m.Extended.Stamps[name] = "x"
	}
	for _, s := range []serialization.Serializer{serialization.JSON, serialization.MsgPack, serialization.YAML} {
		data, err := protocol.AppendResult(nil, m, s)
		if err != nil {
			t.Fatal(err)
		}
		if !isKnownSuccess(data, s.Name()) {
			t.Errorf("%s: not recognized: %q", s.Name(), data)
		}
		got, err := protocol.DecodeResult(data, s)
		if err != nil {
			t.Fatal(err)
		}
		if got.Status != protocol.Success || got.Extended.Stamps["c"] != "x" || got.Extended.Stamps["status"] != nil {
			t.Errorf("%s: %+v", s.Name(), got)
		}
	}
}

// isKnownSuccess tells a stored SUCCESS as a script inside Redis does, without decoding it.
func isKnownSuccess(data []byte, serializerName string) bool {
	for _, prefix := range protocol.SuccessPrefixes(serializerName) {
		if bytes.HasPrefix(data, []byte(prefix)) {
			return true
		}
	}
	line := protocol.SuccessLine(serializerName)
	for text := range bytes.Lines(data) {
		if line != "" && string(bytes.TrimRight(text, "\r\n")) == line {
			return true
		}
	}
	return false
}

func TestSuccessPrefixes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		data, serializer string
		want             bool
	}{
		{`{"status": "SUCCESS", "result": 1}`, "json", true},
		{`{"status":"SUCCESS","result":1}`, "json", true},
		{`{"status": "SUCCESS!", "result": 1}`, "json", false},
		{`{"status": "FAILURE", "result": "SUCCESS"}`, "json", false},
		{`{"result": {"status": "SUCCESS"}}`, "json", false},
		{``, "json", false},
		{"\x86\xa6status\xa7SUCCESS", "msgpack", true},
		{"\xde\x00\x10\xa6status\xa7SUCCESS", "msgpack", true},
		{"\x86\xa6status\xa7FAILURE", "msgpack", false},
		{"\x92\xa6status\xa7SUCCESS", "msgpack", false},
		{"a: 1\nstatus: SUCCESS\n", "yaml", true},
		{"status: SUCCESS", "yaml", true},
		{"a: 1\r\nstatus: SUCCESS\r\n", "yaml", true},
		{"a: 'x\n\n  status: SUCCESS\n\n  '\nstatus: FAILURE\n", "yaml", false},
		{"status: SUCCESSFUL\n", "yaml", false},
		{`{"status": "SUCCESS"}`, "pickle", false},
	}
	for _, tt := range tests {
		if got := isKnownSuccess([]byte(tt.data), tt.serializer); got != tt.want {
			t.Errorf("%q of %s: %v", tt.data, tt.serializer, got)
		}
	}
	if protocol.SuccessLine("yaml") == "" || protocol.SuccessLine("json") != "" || len(protocol.SuccessPrefixes("yaml")) != 0 {
		t.Error("only yaml is found by a line")
	}
}

func TestAppendResultRefuses(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*protocol.ResultMeta{
		"no id":                {Status: protocol.Success},
		"no status":            {TaskID: "i"},
		"failure without why":  {TaskID: "i", Status: protocol.Failure},
		"revoked without why":  {TaskID: "i", Status: protocol.Revoked},
		"result not writable":  {TaskID: "i", Status: protocol.Success, Result: make(chan int)},
		"extended args broken": {TaskID: "i", Status: protocol.Success, Extended: &protocol.ExtendedMeta{Args: []any{make(chan int)}}},
	} {
		for _, s := range []serialization.Serializer{serialization.JSON, serialization.MsgPack, serialization.YAML} {
			if data, err := protocol.AppendResult(nil, m, s); err == nil {
				t.Errorf("%s, %s: wrote %s", name, s.Name(), data)
			}
		}
	}
}

// Python has no year 10000; a date it cannot read would cost it the whole result.
func TestAppendResultImpossibleDate(t *testing.T) {
	t.Parallel()
	for _, s := range []serialization.Serializer{serialization.JSON, serialization.MsgPack, serialization.YAML} {
		data, err := protocol.AppendResult(nil, &protocol.ResultMeta{TaskID: "i", Status: protocol.Success,
			DateDone: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, s)
		if err != nil {
			t.Fatal(err)
		}
		object, err := s.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		if done := object.(map[string]any)["date_done"]; done != nil {
			t.Errorf("%s: date_done is %v", s.Name(), done)
		}
	}
}

func TestAppendResultExceptionArgs(t *testing.T) {
	t.Parallel()
	tooBig := new(big.Int).Lsh(big.NewInt(1), 70)
	m := &protocol.ResultMeta{TaskID: "i", Status: protocol.Failure,
		Exception: &protocol.Exception{Type: "E", Args: []any{"a", tooBig}}}
	data, err := protocol.AppendResult(nil, m, serialization.MsgPack)
	if err != nil {
		t.Fatal(err)
	}
	got, err := protocol.DecodeResult(data, serialization.MsgPack)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{"a", tooBig.String()}, got.Exception.Args); diff != "" {
		t.Error(diff)
	}
	if len(m.Exception.Args) != 2 || m.Exception.Args[1] != tooBig {
		t.Error("the exception was changed")
	}
}

func TestDecodeResultTolerates(t *testing.T) {
	t.Parallel()
	exception := func(args ...any) *protocol.Exception { return &protocol.Exception{Type: "E", Args: args} }
	tests := []struct {
		name, data string
		want       protocol.ResultMeta
	}{
		{"rpc reply", `{"task_id": "i", "status": "SUCCESS", "result": 3, "traceback": null, "children": []}`,
			protocol.ResultMeta{TaskID: "i", Status: protocol.Success, Result: int64(3)}},
		{"least", `{"status": "SUCCESS"}`, protocol.ResultMeta{Status: protocol.Success}},
		{"custom state", `{"status": "PROGRESS", "result": {"done": 0.5}, "task_id": "i"}`,
			protocol.ResultMeta{TaskID: "i", Status: "PROGRESS", Result: map[string]any{"done": 0.5}}},
		{"message text", `{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": "m", "exc_module": null}}`,
			protocol.ResultMeta{Status: protocol.Failure, Exception: exception("m")}},
		{"message null", `{"status": "FAILURE", "result": {"exc_type": "E", "exc_message": null}}`,
			protocol.ResultMeta{Status: protocol.Failure, Exception: exception()}},
		{"message absent", `{"status": "REVOKED", "result": {"exc_type": "E"}}`,
			protocol.ResultMeta{Status: protocol.Revoked, Exception: exception()}},
		{"failure of text", `{"status": "FAILURE", "result": "boom"}`,
			protocol.ResultMeta{Status: protocol.Failure, Exception: &protocol.Exception{Type: "Exception", Module: "builtins", Args: []any{"boom"}}}},
		{"failure of nothing", `{"status": "FAILURE", "result": null}`,
			protocol.ResultMeta{Status: protocol.Failure, Exception: &protocol.Exception{Type: "Exception", Module: "builtins"}}},
		{"retry of nothing", `{"status": "RETRY", "result": null}`, protocol.ResultMeta{Status: protocol.Retry}},
		{"retry", `{"status": "RETRY", "result": {"exc_type": "E", "exc_message": [], "exc_module": ""}, "children": [[["i", null], null]]}`,
			protocol.ResultMeta{Status: protocol.Retry, Exception: exception(), Children: []protocol.ResultTuple{{ID: "i"}}}},
		{"flat children", `{"status": "SUCCESS", "children": ["a", "b"]}`, protocol.ResultMeta{Status: protocol.Success}},
		{"odd children", `{"status": "SUCCESS", "children": {"a": 1}}`, protocol.ResultMeta{Status: protocol.Success}},
		{"nanoseconds", `{"status": "SUCCESS", "date_done": "2026-01-02T03:04:05.678901234Z"}`,
			protocol.ResultMeta{Status: protocol.Success, DateDone: goldenTime}},
		{"date in a zone", `{"status": "SUCCESS", "date_done": "2026-01-02T04:04:05.678901+01:00"}`,
			protocol.ResultMeta{Status: protocol.Success, DateDone: goldenTime}},
		{"typed date", `{"status": "SUCCESS", "date_done": {"__type__": "datetime", "__value__": "2026-01-02T03:04:05.678901"}}`,
			protocol.ResultMeta{Status: protocol.Success, DateDone: goldenTime}},
		{"date before all calendars", `{"status": "SUCCESS", "date_done": "0001-01-01T00:00:00+01:00"}`, protocol.ResultMeta{Status: protocol.Success}},
		{"bad date", `{"status": "SUCCESS", "date_done": "yesterday"}`, protocol.ResultMeta{Status: protocol.Success}},
		{"wrong kinds", `{"status": "SUCCESS", "date_done": 5, "traceback": 5, "task_id": 5, "group_id": 5, "parent_id": []}`,
			protocol.ResultMeta{Status: protocol.Success}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := protocol.DecodeResult([]byte(tt.data), serialization.JSON)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, got, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, data := range []string{``, `{`, `[]`, `null`, `{}`, `{"status": null}`, `{"status": 5}`, `{"result": [["g", null], []]}`} {
		if got, err := protocol.DecodeResult([]byte(data), serialization.JSON); err == nil {
			t.Errorf("%s is %+v", data, got)
		}
	}
}

func TestResultTuple(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		want       protocol.ResultTuple
	}{
		{"task", `[["i",null],null]`, protocol.ResultTuple{ID: "i"}},
		{"chain", `[["c",[["b",[["a",null],null]],null]],null]`,
			protocol.ResultTuple{ID: "c", Parent: &protocol.ResultTuple{ID: "b", Parent: &protocol.ResultTuple{ID: "a"}}}},
		{"group", `[["g",[["p",null],null]],[[["a",null],null],[["b",null],null]]]`,
			protocol.ResultTuple{ID: "g", Parent: &protocol.ResultTuple{ID: "p"}, Children: []protocol.ResultTuple{{ID: "a"}, {ID: "b"}}}},
		{"empty group", `[["g",null],[]]`, protocol.ResultTuple{ID: "g", Children: []protocol.ResultTuple{}}},
	}
	for _, tt := range tests {
		v, err := serialization.DecodeJSON([]byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		got, err := protocol.ResultTupleFromValue(v)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
		if diff := cmp.Diff(v, got.Value()); diff != "" {
			t.Errorf("%s: Value: %s", tt.name, diff)
		}
		// The document writes tuples by hand.
		data, err := protocol.AppendResult(nil, &protocol.ResultMeta{TaskID: "i", Status: protocol.Success,
			Children: []protocol.ResultTuple{got}}, serialization.JSON)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := protocol.DecodeResult(data, serialization.JSON)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]protocol.ResultTuple{tt.want}, meta.Children); diff != "" {
			t.Errorf("%s: in a document: %s", tt.name, diff)
		}
	}
	bare, err := protocol.ResultTupleFromValue([]any{"i", nil})
	if err != nil || bare.ID != "i" {
		t.Errorf("bare id: %+v, %v", bare, err)
	}
	for _, text := range []string{`null`, `"i"`, `[]`, `["i"]`, `[[], null]`, `[["i", null, null], null]`, `[[5, null], null]`, `[["", null], null]`,
		`[5, null]`, `[["i", "p"], null]`, `[["i", null], 5]`, `[["i", null], ["a"]]`} {
		v, err := serialization.DecodeJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := protocol.ResultTupleFromValue(v); err == nil {
			t.Errorf("%s is %+v", text, got)
		}
	}
}

// TestResultTupleOfALongChain: what is written of it every reader can read, and what Python can write is read.
func TestResultTupleOfALongChain(t *testing.T) {
	t.Parallel()
	chain := func(steps int) protocol.ResultTuple {
		r := protocol.ResultTuple{ID: "0"}
		for i := 1; i < steps; i++ {
			r = protocol.ResultTuple{ID: strconv.Itoa(i), Parent: new(r)}
		}
		return r
	}
	steps := func(r *protocol.ResultTuple) (n int) {
		for ; r != nil; r = r.Parent {
			n++
		}
		return n
	}
	group := protocol.ResultTuple{ID: "g", Children: []protocol.ResultTuple{chain(1000), chain(50)}}
	for _, s := range []serialization.Serializer{serialization.JSON, serialization.MsgPack} {
		data, err := protocol.AppendResult(nil, &protocol.ResultMeta{TaskID: "i", Status: protocol.Success, Children: []protocol.ResultTuple{group}}, s)
		if err != nil {
			t.Fatal(s.Name(), err)
		}
		meta, err := protocol.DecodeResult(data, s)
		if err != nil || len(meta.Children) != 1 {
			t.Fatal(s.Name(), err)
		}
		members := meta.Children[0].Children
		if members[0].ID != "999" || steps(&members[0]) != 101 || steps(&members[1]) != 50 {
			t.Errorf("%s: %s with %d steps, and %d", s.Name(), members[0].ID, steps(&members[0]), steps(&members[1]))
		}
	}
	long := chain(480)
	text, err := json.Marshal(map[string]any{"task_id": "i", "status": "SUCCESS", "result": 1, "children": []any{long.Lineage()}})
	if err != nil {
		t.Fatal(err)
	}
	meta, err := protocol.DecodeResult(text, serialization.JSON)
	if err != nil || len(meta.Children) != 1 || steps(&meta.Children[0]) != 480 {
		t.Errorf("the children of a Python task that has sent a chain of 480: %v, %v", meta, err)
	}
}

func TestExceptionText(t *testing.T) {
	t.Parallel()
	tests := []struct {
		e           protocol.Exception
		error, repr string
	}{
		{protocol.Exception{Type: "ValueError"}, "ValueError", "ValueError()"},
		{protocol.Exception{Type: "ValueError", Args: []any{"bad"}}, "ValueError: bad", "ValueError('bad')"},
		{protocol.Exception{Type: "KeyError", Args: []any{int64(5)}}, "KeyError: 5", "KeyError(5)"},
		{protocol.Exception{Type: "ValueError", Args: []any{"bad", int64(42), nil}}, "ValueError: ('bad', 42, None)", "ValueError('bad', 42, None)"},
		{protocol.Exception{Type: "E", Args: []any{value.Decimal("1.50")}}, "E: Decimal('1.50')", "E(Decimal('1.50'))"},
	}
	for _, tt := range tests {
		if tt.e.Error() != tt.error || tt.e.String() != tt.repr {
			t.Errorf("got %q and %q, want %q and %q", tt.e.Error(), tt.e.String(), tt.error, tt.repr)
		}
	}
	many := protocol.Exception{Type: "E", Args: make([]any, 1e6)}
	if n := len(many.String()); n > 10_000 {
		t.Errorf("repr of a million arguments has %d bytes", n)
	}
}

func TestExceptionValue(t *testing.T) {
	t.Parallel()
	for _, e := range []*protocol.Exception{{Type: "E", Module: "m", Args: []any{"a", int64(1)}}, {Type: "E"}} {
		if diff := cmp.Diff(e, protocol.ExceptionFromValue(e.Value())); diff != "" {
			t.Error(diff)
		}
	}
	if v := (&protocol.Exception{Type: "E"}).Value(); v["exc_message"] == nil {
		t.Error("exc_message is null, on which Python makes an argument None")
	}
}
