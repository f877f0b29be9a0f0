package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
)

func TestFunc(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	sum := func(_ context.Context, x, y int) (int, error) { return x + y, nil }
	tests := []struct {
		name   string
		def    Definition
		args   []any
		kwargs map[string]any
		want   any
		err    string
	}{
		{"positional", Func("tasks.add", sum), []any{int64(1), int64(2)}, nil, 3, ""},
		{"keywords", Func("tasks.add", sum, Params("x", "y")), []any{int64(1)}, map[string]any{"y": int64(2)}, 3, ""},
		{"too few", Func("tasks.add", sum), []any{int64(1)}, nil, nil, "add() missing 1 required positional argument: 'arg2'"},
		{"too few, named", Func("tasks.add", sum, Params("x", "y")), nil, nil, nil, "add() missing 2 required positional arguments: 'x' and 'y'"},
		{"unnamed", Func("tasks.add", sum), nil, map[string]any{"x": int64(1)}, nil, "task.Params"},
		{"wrong type", Func("tasks.add", sum, Params("x", "y")), []any{"1", int64(1)}, nil, nil, `add() argument x: expected int, got str "1"`},
		{"no context", Func("t", func(s string) (string, error) { return s, nil }), []any{"a"}, nil, "a", ""},
		{"variadic", Func("t", func(_ context.Context, a string, rest ...int) (string, error) { return fmt.Sprint(a, rest), nil }), []any{"a", int64(1), int64(2)}, nil, "a[1 2]", ""},
		{"variadic, none", Func("t", func(rest ...int) (int, error) { return len(rest), nil }), nil, nil, 0, ""},
		{"no result", Func("t", func() error { return nil }), nil, nil, nil, ""},
		{"nothing at all", Func("t", func() {}), nil, nil, nil, ""},
		{"an error", Func("t", func() (int, error) { return 1, failed }), nil, nil, nil, "failed"},
		{"lenient", Func("t", func(x int) (int, error) { return x, nil }, Params("x"), Lenient()), nil, map[string]any{"x": int64(1), "z": nil}, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.def.Handler(t.Context(), &protocol.Request{Args: tt.args, Kwargs: tt.kwargs})
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestFuncContext: the function gets the context the worker runs the task in.
func TestFuncContext(t *testing.T) {
	t.Parallel()
	info := &Info{Request: &protocol.Request{Headers: protocol.Headers{ID: "id-1"}}}
	d := Func("t", func(ctx context.Context) (string, error) {
		i, ok := FromContext(ctx)
		if !ok {
			return "", errors.New("no info")
		}
		return i.ID, nil
	})
	if got, err := d.Handler(NewContext(t.Context(), info), info.Request); got != "id-1" || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestFuncRefuses(t *testing.T) {
	t.Parallel()
	for want, try := range map[string]func() (Definition, error){
		"not a function":       func() (Definition, error) { return TryFunc("t", 5) },
		"<nil> is not":         func() (Definition, error) { return TryFunc("t", nil) },
		"must return":          func() (Definition, error) { return TryFunc("t", func() int { return 1 }) },
		"must return (result":  func() (Definition, error) { return TryFunc("t", func() (int, int, error) { return 1, 1, nil }) },
		"names 1 parameters":   func() (Definition, error) { return TryFunc("t", func(a, b int) {}, Params("a")) },
		"parameter 1":          func() (Definition, error) { return TryFunc("t", func(chan int) {}) },
		`parameters are named`: func() (Definition, error) { return TryFunc("t", func(a, b int) {}, Params("a", "a")) },
		"empty":                func() (Definition, error) { return TryFunc("t", func(a int) {}, Params("")) },
	} {
		if _, err := try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	var states []string
	info := &Info{
		Request: &protocol.Request{Headers: protocol.Headers{Extra: []protocol.Header{{Name: "tenant", Value: []byte(`"a"`)}}}},
		Report: func(_ context.Context, s protocol.State, meta any) error {
			states = append(states, fmt.Sprint(s, meta))
			return nil
		},
	}
	ctx := NewContext(t.Context(), info)
	if err := Progress(ctx, 50); err != nil {
		t.Error(err)
	}
	if err := info.UpdateState(ctx, "CUSTOM", nil); err != nil {
		t.Error(err)
	}
	for _, s := range []protocol.State{"", protocol.Success, protocol.Failure, protocol.Revoked} {
		if info.UpdateState(ctx, s, nil) == nil {
			t.Errorf("state %q was stored", s)
		}
	}
	if diff := cmp.Diff([]string{"PROGRESS50", "CUSTOM<nil>"}, states); diff != "" {
		t.Error(diff)
	}
	if string(info.Header("tenant")) != `"a"` || info.Header("none") != nil {
		t.Error("the custom header is not found")
	}
	if err := Progress(t.Context(), 1); err != nil {
		t.Errorf("outside of a task: %v", err)
	}
	if _, ok := FromContext(t.Context()); ok {
		t.Error("outside of a task there is no info")
	}
	for i := range maxChildren + 5 {
		info.addChild(protocol.ResultTuple{ID: fmt.Sprint(i)})
	}
	if n := len(info.Children()); n != maxChildren {
		t.Errorf("%d children", n)
	}
}
