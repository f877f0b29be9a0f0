package interop

import (
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
)

// goToPython sends from Go to a Python worker. Python judges the arguments, Go judges the results.
func goToPython(t *testing.T, c Crossing, settings Settings) {
	clients := map[int]*task.Client{1: dial(t, settings, 1), 2: dial(t, settings, 2)}
	for _, way := range c.ways() {
		for _, s := range sets {
			if s.carries(c.Version, way.serializer) {
				c.Cell(t, way.String()+" "+s.name, func(t *testing.T) { checkInPython(t, clients[way.protocol], way, s) })
			}
		}
	}
	nested := sets[slices.IndexFunc(sets, func(s set) bool { return s.name == "nested" })]
	for _, way := range c.packings("gzip", "zlib", "lzma", "brotli", "zstd") {
		c.Cell(t, way.String(), func(t *testing.T) { checkInPython(t, clients[way.protocol], way, nested) })
	}
	c.Cell(t, "10 MB", func(t *testing.T) {
		checkInPython(t, clients[2], variant{protocol: 2, serializer: "json", compression: "zlib"}, bigSet)
	})
	c.Cell(t, "bzip2 cannot be written", func(t *testing.T) {
		if _, err := clients[2].Send(within(t), "py.add", []any{2, 3}, nil, task.Compression("bzip2")); err == nil {
			t.Error("no error; Go has no bzip2 writer, so something else was sent under its name")
		}
	})
	for _, s := range sets {
		if s.carries(c.Version, "json") {
			c.Cell(t, "result "+s.name, func(t *testing.T) {
				wantResult(t, clients[2], "py.values", []any{s.name}, s.args)
			})
		}
	}
	c.Cell(t, "keywords", func(t *testing.T) {
		res, err := clients[2].Send(within(t), "py.echo", []any{1}, map[string]any{"b": "x", "a": nil})
		if err != nil {
			t.Fatal(err)
		}
		wantGet(t, res, map[string]any{"args": []any{int64(1)}, "kwargs": map[string]any{"a": nil, "b": "x"}})
	})
	pythonSeesGoTypes(t, c, clients[2])
	goSeesPythonErrors(t, c, clients[2])
	pythonReadsHeaders(t, c, clients[2])
	c.Cell(t, "request", func(t *testing.T) { pythonSeesTheRequest(t, clients[2]) })
	c.Cell(t, "progress", func(t *testing.T) { goSeesPythonProgress(t, clients[2]) })
	if c.Backend == "rpc" {
		c.Cell(t, "the result of another client", func(t *testing.T) {
			id := send(t, clients[2], "py.add", []any{1, 1}).ID()
			if state, err := clients[1].Result(id).State(within(t)); err != nil || state != protocol.Pending {
				t.Errorf("another client sees %s, %v, want PENDING", state, err)
			}
			if _, err := clients[1].Result(id).Get(within(t)); !errors.Is(err, backends.ErrUnexpected) {
				t.Errorf("waiting in another client gives %v, want ErrUnexpected at once", err)
			}
			wantGet(t, clients[2].Result(id), int64(2))
		})
	}
	c.Cell(t, "forget", func(t *testing.T) {
		res, err := clients[2].Send(within(t), "py.add", []any{1, 1}, nil)
		if err != nil {
			t.Fatal(err)
		}
		wantGet(t, res, int64(2))
		if err := res.Forget(within(t)); err != nil {
			t.Fatal(err)
		}
		if state, err := res.State(within(t)); err != nil || state != protocol.Pending {
			t.Errorf("state after Forget is %s, %v; want PENDING", state, err)
		}
	})
}

// checkInPython sends a set to py.check, which compares what arrives with Python's own copy of the set.
func checkInPython(t *testing.T, client *task.Client, way variant, s set) {
	t.Helper()
	opts := []task.SendOption{task.Serializer(way.serializer)}
	if way.compression != "" {
		opts = append(opts, task.Compression(way.compression))
	}
	res, err := client.Send(within(t), "py.check", append([]any{s.name}, s.args...), nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, res)
}

// wantVerdict waits for what a task that compares has to say.
func wantVerdict(t *testing.T, res *task.Result[any]) {
	t.Helper()
	got, err := res.Get(within(t))
	if err != nil {
		t.Fatal(err)
	}
	verdict, ok := got.(map[string]any)
	if !ok {
		t.Fatalf("it returned %#v, not a verdict", got)
	}
	if verdict["equal"] != true {
		t.Errorf("Python got  %v\nit expected %v", verdict["got"], verdict["want"])
	}
}

// pythonSeesGoTypes checks what Python makes of Go types that are not canonical values.
func pythonSeesGoTypes(t *testing.T, c Crossing, client *task.Client) {
	type order struct{ LineItems []string }
	seven := uint8(7)
	tests := []struct {
		name  string
		arg   any
		class string // Python's type(x).__name__
		repr  string
		typed bool
	}{
		{name: "int", arg: 42, class: "int", repr: "42"},
		{name: "uint64", arg: uint64(1) << 63, class: "int", repr: "9223372036854775808"},
		{name: "big.Int", arg: new(big.Int).Lsh(big.NewInt(1), 70), class: "int", repr: "1180591620717411303424"},
		{name: "float32", arg: float32(0.5), class: "float", repr: "0.5"},
		{name: "whole float", arg: 3.0, class: "float", repr: "3.0"},
		{name: "string", arg: "it's", class: "str", repr: `"it's"`},
		{name: "nil pointer", arg: (*int)(nil), class: "NoneType", repr: "None"},
		{name: "pointer", arg: &seven, class: "int", repr: "7"},
		{name: "nil slice", arg: []int(nil), class: "list", repr: "[]"},
		{name: "array", arg: [2]bool{true, false}, class: "list", repr: "[True, False]"},
		{name: "map", arg: map[string]int{"a": 1}, class: "dict", repr: "{'a': 1}"},
		{name: "struct", arg: order{LineItems: []string{"x"}}, class: "dict", repr: "{'line_items': ['x']}"},
		{name: "bytes", arg: []byte("\xff"), class: "bytes", repr: `b'\xff'`, typed: true},
		{name: "uuid", arg: uuid.MustParse("12345678-1234-4678-9234-567812345678"), class: "UUID", repr: "UUID('12345678-1234-4678-9234-567812345678')", typed: true},
		{name: "decimal", arg: value.Decimal("1.10"), class: "Decimal", repr: "Decimal('1.10')", typed: true},
		{name: "nanoseconds", arg: time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC), class: "datetime",
			repr: "datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)", typed: true},
	}
	for _, tt := range tests {
		if tt.typed && !c.AtLeast("5.3") {
			continue
		}
		c.Cell(t, "Go type "+tt.name, func(t *testing.T) {
			res, err := client.Send(within(t), "py.describe", []any{tt.arg}, map[string]any{"k": tt.arg})
			if err != nil {
				t.Fatal(err)
			}
			seen := []any{tt.class, tt.repr}
			wantGet(t, res, map[string]any{"args": []any{seen}, "kwargs": map[string]any{"k": seen}})
		})
	}
}

// goSeesPythonErrors checks that exceptions of a Python worker can be told apart in Go.
func goSeesPythonErrors(t *testing.T, c Crossing, client *task.Client) {
	failure := func(t *testing.T, name string, args ...any) *task.Error {
		t.Helper()
		res, err := client.Send(within(t), name, args, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = res.Get(within(t))
		var failed *task.Error
		if !errors.As(err, &failed) {
			t.Fatalf("error is %v (%T), want a *task.Error", err, err)
		}
		if failed.State != protocol.Failure || failed.TaskID != res.ID() {
			t.Errorf("error is of task %s in state %s, want %s in FAILURE", failed.TaskID, failed.State, res.ID())
		}
		return failed
	}
	c.Cell(t, "failure: builtin", func(t *testing.T) {
		err := failure(t, "py.fail", "out of paper")
		if !errors.Is(err, task.PyError("ValueError")) || !errors.Is(err, task.PyError("Exception")) || errors.Is(err, task.PyError("KeyError")) {
			t.Errorf("%v is not told to be a ValueError, an Exception, no KeyError", err)
		}
		if err.Message != "out of paper" || !strings.Contains(err.Traceback, `raise ValueError(message)`) {
			t.Errorf("message %q, traceback %q", err.Message, err.Traceback)
		}
	})
	c.Cell(t, "failure: of the user's own", func(t *testing.T) {
		err := failure(t, "py.decline", "no funds", 51)
		if !errors.Is(err, task.PyError("app.CardDeclined")) {
			t.Errorf("%v (%s.%s) is not told to be app.CardDeclined", err, err.Module, err.Type)
		}
		if want := []any{"no funds", int64(51)}; !same(want, err.Args) {
			t.Errorf("arguments are %s, want %s", short(err.Args), short(want))
		}
	})
	c.Cell(t, "failure: wrong arguments", func(t *testing.T) {
		err := failure(t, "py.add", 1)
		if !errors.Is(err, task.PyError("TypeError")) || !strings.Contains(err.Message, "missing 1 required positional argument: 'y'") {
			t.Errorf("%v is not the TypeError of a missing y", err)
		}
	})
}

// pythonSeesTheRequest checks that a Python worker reads from our headers what Celery's own would tell it.
func pythonSeesTheRequest(t *testing.T, client *task.Client) {
	res, err := client.Send(within(t), "py.request", nil, nil, task.ID("id-1"), task.Expires(time.Hour),
		task.TimeLimit(time.Minute), task.SoftTimeLimit(30*time.Second), task.Header("tenant", "acme"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := res.Get(within(t))
	if err != nil {
		t.Fatal(err)
	}
	request, ok := got.(map[string]any)
	if !ok {
		t.Fatalf("py.request returned %#v", got)
	}
	want := map[string]any{
		"id": "id-1", "root_id": "id-1", "parent_id": nil, "group": nil, "retries": int64(0), "correlation_id": "id-1",
		"argsrepr": "()", "kwargsrepr": "{}", "eta": nil, "origin": client.Config().Origin, "tenant": "acme",
	}
	for k, w := range want {
		if !same(w, request[k]) {
			t.Errorf("%s is %s, want %s", k, short(request[k]), short(w))
		}
	}
	if limits, _ := request["timelimit"].([]any); len(limits) != 2 || !number(limits[0], 60) || !number(limits[1], 30) {
		t.Errorf("timelimit is %v, want [60, 30]", request["timelimit"])
	}
	if _, err := protocol.ParseTime(text(request["expires"])); err != nil {
		t.Errorf("expires: %v", err)
	}
	if info, _ := request["delivery_info"].(map[string]any); info["routing_key"] != pyQueue {
		t.Errorf("delivery_info is %v, want routing key %s", request["delivery_info"], pyQueue)
	}
}

// number reports whether v is the number n, as an int or a float.
func number(v any, n float64) bool { return v == any(int64(n)) || v == any(n) }

func text(v any) string {
	s, _ := v.(string)
	return s
}

// goSeesPythonProgress watches a task that reports a state of its own and then waits until that state was seen.
func goSeesPythonProgress(t *testing.T, client *task.Client) {
	gate := filepath.Join(t.TempDir(), "seen")
	res, err := client.Send(within(t), "py.hold", []any{gate, map[string]any{"done": 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var states []protocol.State
	for meta, err := range res.Watch(within(t)) {
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, meta.Status)
		if meta.Status == "PROGRESS" {
			if want := map[string]any{"done": int64(1)}; !same(want, meta.Result) {
				t.Errorf("meta of PROGRESS is %s, want %s", short(meta.Result), short(want))
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Contains(states, "PROGRESS") || states[len(states)-1] != protocol.Success {
		t.Errorf("states %v, want PROGRESS among them and SUCCESS last", states)
	}
}

// wantResult sends a task and compares its result.
func wantResult(t *testing.T, client *task.Client, name string, args []any, want any, opts ...task.SendOption) {
	t.Helper()
	res, err := client.Send(within(t), name, args, nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	wantGet(t, res, want)
}

func wantGet(t *testing.T, res *task.Result[any], want any) {
	t.Helper()
	got, err := res.Get(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if !same(want, got) {
		t.Errorf("result is %s\nwant      %s", short(got), short(want))
	}
}
