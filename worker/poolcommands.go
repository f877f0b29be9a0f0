package worker

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
)

// number is an argument that is a whole number, or the default if it is null or not there.
func (a arguments) number(name string, otherwise int) (int, error) {
	switch v := a.values[name].(type) {
	case nil:
		return otherwise, nil
	case int64:
		if v >= -maxConcurrency && v <= maxConcurrency {
			return int(v), nil
		}
		return 0, pythonError("ValueError", fmt.Sprintf("%s: %s is out of range: %d", a.method, name, v))
	default:
		return 0, pythonError("TypeError", fmt.Sprintf("%s: %s is no whole number: %s", a.method, name, value.Repr(v, 100)))
	}
}

func poolGrowCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	return w.resizeCommand(a, w.Grow, "pool will grow")
}

func poolShrinkCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	return w.resizeCommand(a, w.Shrink, "pool will shrink")
}

func (w *Worker) resizeCommand(a arguments, change func(int) error, said string) (any, error) {
	if w.autoscaler != nil {
		return nok(a.method + " is not supported with autoscale. Adjust autoscale range instead."), nil
	}
	n, err := a.number("n", 1)
	if err != nil {
		return nil, err
	}
	if err := change(n); err != nil {
		return nil, pythonError("ValueError", err.Error())
	}
	return ok(said), nil
}

// autoscaleCommand changes the bounds of autoscale; one that is not given stays.
func autoscaleCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	now := w.Stats().Autoscale
	if now == nil {
		return nil, pythonError("ValueError", "Autoscale not enabled")
	}
	most, err := a.number("max", now.Max)
	if err != nil {
		return nil, err
	}
	least, err := a.number("min", now.Min)
	if err != nil {
		return nil, err
	}
	if err := w.SetAutoscale(most, least); err != nil {
		return nil, pythonError("ValueError", err.Error())
	}
	return ok(fmt.Sprintf("autoscale now max=%d min=%d", most, least)), nil
}

// rateLimitCommand sets or clears a task's rate limit. Celery tells one from the other by the argument's truth, so the text
// "0" clears and says "set".
func rateLimitCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	name, err := a.requiredText("task_name")
	if err != nil {
		return nil, err
	}
	given := a.values["rate_limit"]
	said := "new rate limit set successfully"
	text := ""
	switch v := given.(type) {
	case string:
		text = v
	case nil:
	case int64, float64:
		text = fmt.Sprint(v)
	default:
		return nok("Invalid rate limit string: " + task.ExceptionOf(pythonError("TypeError", "it is "+value.Repr(v, 100))).String()), nil
	}
	if text == "" || given == int64(0) || given == 0.0 {
		said = "rate limit disabled successfully"
	}
	switch err := w.SetRateLimit(name, text); {
	case errors.Is(err, task.ErrNotRegistered):
		return nok("unknown task"), nil
	case err != nil:
		return nok("Invalid rate limit string: " + task.ExceptionOf(pythonError("ValueError", err.Error())).String()), nil
	}
	w.log.Info("New rate limit for tasks of type " + name + ": " + text + ".")
	return ok(said), nil
}
