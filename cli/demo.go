package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// The demo tasks: something for a first try and for tests to call, in Python's words
//
//	dev.add(x, y)              the sum of two numbers, exact for integers of any size
//	dev.echo(*args, **kwargs)  {"args": [...], "kwargs": {...}}, as they were received
//	dev.sleep(seconds)         waits, then returns seconds
//	dev.fail(message="...")    raises ValueError(message)
//	dev.progress(steps)        reports PROGRESS {"current": i, "total": steps} for each step, returns steps
var (
	demoAdd      = task.Define[addArgs, any]("dev.add")
	demoEcho     = task.Define[task.Raw, map[string]any]("dev.echo")
	demoSleep    = task.Define[sleepArgs, any]("dev.sleep")
	demoFail     = task.Define[failArgs, task.NoResult]("dev.fail")
	demoProgress = task.Define[progressArgs, int]("dev.progress")
)

type addArgs struct {
	X any `task:"x"`
	Y any `task:"y"`
}

type sleepArgs struct {
	Seconds any `task:"seconds"`
}

type failArgs struct {
	Message string `task:"message,default=this task always fails"`
}

type progressArgs struct {
	Steps int `task:"steps"`
}

func demoDefinitions() []task.Definition {
	return []task.Definition{demoAdd.Definition(add), demoEcho.Definition(echo), demoSleep.Definition(sleep),
		demoFail.Definition(fail), demoProgress.Definition(progress)}
}

func demoNames() []string {
	all := demoDefinitions()
	names := make([]string, len(all))
	for i, d := range all {
		names[i] = d.Name
	}
	return names
}

// addDemo registers the demo tasks but for those whose name the user has taken.
func addDemo(mux *worker.Mux) {
	taken := mux.Names()
	for _, d := range demoDefinitions() {
		if !slices.Contains(taken, d.Name) {
			mux.Register(d)
		}
	}
}

// add is Python's x + y for numbers: integers never overflow, and one float makes the sum a float.
func add(_ context.Context, a addArgs) (any, error) {
	for _, arg := range []struct {
		name  string
		value any
	}{{"x", a.X}, {"y", a.Y}} {
		if !isNumber(arg.value) {
			return nil, typeError("add() argument %s: expected int or float, got %s", arg.name, value.PythonType(arg.value))
		}
	}
	if isFloat(a.X) || isFloat(a.Y) {
		x, errX := toFloat(a.X)
		y, errY := toFloat(a.Y)
		return x + y, errors.Join(errX, errY)
	}
	x, okX := a.X.(int64)
	y, okY := a.Y.(int64)
	if sum := x + y; okX && okY && (sum > x) == (y > 0) { // it did not wrap around
		return sum, nil
	}
	return new(big.Int).Add(toBig(a.X), toBig(a.Y)), nil
}

func isNumber(v any) bool {
	switch v.(type) {
	case int64, *big.Int, float64:
		return true
	}
	return false
}

func isFloat(v any) bool { _, ok := v.(float64); return ok }

func toBig(v any) *big.Int {
	if n, ok := v.(int64); ok {
		return big.NewInt(n)
	}
	return v.(*big.Int)
}

func toFloat(v any) (float64, error) {
	switch v := v.(type) {
	case float64:
		return v, nil
	case int64:
		return float64(v), nil
	}
	f, _ := new(big.Float).SetInt(toBig(v)).Float64()
	if math.IsInf(f, 0) {
		return 0, task.AsPython(errors.New("int too large to convert to float"), "builtins", "OverflowError")
	}
	return f, nil
}

func typeError(format string, args ...any) error {
	return task.AsPython(fmt.Errorf(format, args...), "builtins", "TypeError")
}

func valueError(text string) error { return task.AsPython(errors.New(text), "builtins", "ValueError") }

func echo(_ context.Context, a task.Raw) (map[string]any, error) {
	return map[string]any{"args": a.Args, "kwargs": a.Kwargs}, nil
}

func sleep(ctx context.Context, a sleepArgs) (any, error) {
	if !isNumber(a.Seconds) {
		return nil, typeError("sleep() argument seconds: expected int or float, got %s", value.PythonType(a.Seconds))
	}
	n, err := toFloat(a.Seconds)
	if err != nil {
		return nil, err
	}
	if !(n >= 0 && n < 1e9) {
		return nil, valueError("sleep length must be from 0 to 1e9 seconds")
	}
	timer := time.NewTimer(time.Duration(n * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return a.Seconds, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func fail(_ context.Context, a failArgs) (task.NoResult, error) {
	return task.NoResult{}, valueError(a.Message)
}

func progress(ctx context.Context, a progressArgs) (int, error) {
	for i := 1; i <= a.Steps; i++ {
		if err := task.Progress(ctx, map[string]any{"current": i, "total": a.Steps}); err != nil {
			return 0, err
		}
	}
	return a.Steps, nil
}
