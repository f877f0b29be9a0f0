package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// args2 are the parameters of the tasks that take two numbers.
type args2 struct{ X, Y any }

type addArgs struct {
	X any
	Y any
	Z any `task:"z,default=null"`
}

type sumArgs struct {
	Numbers []any
	Pause   float64 `task:"pause_time,default=1"`
}

type pydanticArgs struct {
	Data struct {
		X int `json:"x"`
		Y int `json:"y"`
	}
}

type fileArgs struct {
	File   string `task:"file_name"`
	Number int    `task:"i"`
}

// arithmetic are the tasks that compute something, and those that wait.
func arithmetic(mux *worker.Mux) {
	add := func(_ context.Context, a args2) (any, error) { return plus(a.X, a.Y) }
	worker.Handle(mux, task.Define[addArgs, any](name("add")), func(_ context.Context, a addArgs) (any, error) {
		if a.Z == nil {
			return plus(a.X, a.Y)
		}
		return plus(a.X, a.Y, a.Z)
	})
	worker.Handle(mux, task.Define[args2, any](name("add_not_typed"), task.Lenient()), add)
	worker.Handle(mux, task.Define[args2, any](name("add_ignore_result"), task.IgnoreResult(true)), add)
	mux.Func(name("identity"), func(x any) (any, error) { return x, nil }, task.Params("x"))
	mux.Func(name("mul"), func(x, y int) (int, error) { return x * y, nil }, task.Params("x", "y"))
	mux.Func(name("tsum"), func(numbers []any) (any, error) { return plus(numbers...) }, task.Params("nums"))
	mux.Func(name("xsum"), nestedSum, task.Params("nums"))
	for _, t := range []string{"add_pydantic", "add_pydantic_string_annotations"} {
		worker.Handle(mux, task.Define[pydanticArgs, map[string]int](name(t)), func(_ context.Context, a pydanticArgs) (map[string]int, error) {
			return map[string]int{"result": a.Data.X + a.Data.Y}, nil
		})
	}
	worker.Handle(mux, task.Define[fileArgs, int](name("write_to_file_and_return_int")), noteNumber)

	worker.Handle(mux, task.Define[sumArgs, any](name("delayed_sum")), delayedSum)
	worker.Handle(mux, task.Define[sumArgs, any](name("delayed_sum_with_soft_guard")), func(ctx context.Context, a sumArgs) (any, error) {
		sum, err := delayedSum(ctx, a)
		if errors.Is(err, task.ErrSoftTimeLimit) {
			return 0, nil
		}
		return sum, err
	})
	type sleepArgs struct {
		Seconds float64        `task:"i"`
		Others  map[string]any `task:",remain"`
	}
	worker.Handle(mux, task.Define[sleepArgs, task.NoResult](name("sleeping")), func(ctx context.Context, a sleepArgs) (task.NoResult, error) {
		return task.NoResult{}, sleep(ctx, a.Seconds)
	})
	mux.Func(name("soft_time_limit_must_exceed_time_limit"), func() {})
	mux.Func(name("replaced_with_me"), func() (bool, error) { return true, nil })
}

// plus is Python's + over numbers, texts and lists.
func plus(terms ...any) (any, error) {
	var sum any = int64(0)
	for i, term := range terms {
		switch t := term.(type) {
		case int64:
			switch s := sum.(type) {
			case int64:
				sum = s + t
				continue
			case float64:
				sum = s + float64(t)
				continue
			}
		case float64:
			switch s := sum.(type) {
			case int64:
				sum = float64(s) + t
				continue
			case float64:
				sum = s + t
				continue
			}
		case string:
			if s, ok := sum.(string); ok || i == 0 {
				sum = s + t
				continue
			}
		case []any:
			if s, ok := sum.([]any); ok || i == 0 {
				sum = append(s[:len(s):len(s)], t...)
				continue
			}
		}
		return nil, task.AsPython(fmt.Errorf("unsupported operand for +: %v", term), "builtins", "TypeError")
	}
	return sum, nil
}

// nestedSum adds up numbers and lists of numbers.
func nestedSum(terms []any) (any, error) {
	sums := make([]any, len(terms))
	for i, term := range terms {
		sums[i] = term
		if list, ok := term.([]any); ok {
			sum, err := plus(list...)
			if err != nil {
				return nil, err
			}
			sums[i] = sum
		}
	}
	return plus(sums...)
}

func noteNumber(_ context.Context, a fileArgs) (int, error) {
	f, err := os.OpenFile(a.File, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, err
	}
	_, err = fmt.Fprintln(io.Writer(f), a.Number)
	return a.Number, errors.Join(err, f.Close())
}

func delayedSum(ctx context.Context, a sumArgs) (any, error) {
	if err := sleep(ctx, a.Pause); err != nil {
		return nil, err
	}
	return plus(a.Numbers...)
}

// sleep waits for some seconds, or until the task is to end.
func sleep(ctx context.Context, seconds float64) error {
	timer := time.NewTimer(time.Duration(seconds * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
