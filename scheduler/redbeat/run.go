package redbeat

import (
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
)

// marker is who marked a run, and when.
type marker struct {
	lease string
	at    time.Time
}

// writeRun is a run as it is kept until it is with the broker.
func (l *lease) writeRun(r scheduler.Run) (string, error) {
	wire, err := r.Task.Wire()
	if err != nil {
		return "", &scheduler.EntryError{Entry: r.Entry, Field: "task", Err: err}
	}
	fields := map[string]any{
		"entry": r.Entry, "moment": protocol.FormatTime(r.Moment), "number": r.Number, "task": wire.Value(),
		"lease": l.id, "marked": protocol.FormatTime(time.Now()),
	}
	if !r.Until.IsZero() {
		fields["until"] = protocol.FormatTime(r.Until)
	}
	text, err := textOf(fields)
	if err != nil {
		return "", &scheduler.EntryError{Entry: r.Entry, Field: "task", Err: err}
	}
	return text, nil
}

func readRun(id, text string) (r scheduler.Run, by marker, err error) {
	dict, err := dictOf(text)
	if err != nil {
		return r, by, err
	}
	r.ID = id
	r.Entry, _ = dict["entry"].(string)
	r.Number, _ = dict["number"].(int64)
	for field, into := range map[string]*time.Time{"moment": &r.Moment, "marked": &by.at} {
		at, _ := dict[field].(string)
		if *into, err = protocol.ParseTime(at); err != nil {
			return r, by, fmt.Errorf("%s: %w", field, err)
		}
	}
	if until, has := dict["until"].(string); has {
		if r.Until, err = protocol.ParseTime(until); err != nil {
			return r, by, fmt.Errorf("until: %w", err)
		}
	}
	by.lease, _ = dict["lease"].(string)
	wire, err := protocol.SignatureFromValue(dict["task"])
	if err != nil {
		return r, by, fmt.Errorf("task: %w", err)
	}
	r.Task = task.SignatureOf(wire)
	return r, by, r.Task.Err()
}
