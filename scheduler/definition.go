package scheduler

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/gelery/gelery/internal/spelling"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
)

// definition reads one after the other the fields of an entry's definition.
type definition struct {
	entry  string
	fields map[string]any
	zone   *time.Location
	errs   []error
}

// definitionFields are the fields of a definition: Celery's of beat_schedule, django-celery-beat's, and ours.
var definitionFields = []string{
	"task", "schedule", "args", "kwargs", "options", "relative", "enabled", "timezone", "missed", "deadline", "jitter", "keep_expired",
	"start", "end", "one_off",
}

// ParseEntry reads an entry as Celery's beat_schedule and files write it, out of canonical values (package value):
//
//	task: tasks.add                  # or a signature, such as a workflow's, as a map
//	schedule: 30                     # see [ParseSchedule]
//	args: [16, 16]                   # also kwargs, and options as of apply_async: {queue: math, expires: 60}
//	relative: false                  # of an interval
//	enabled: true
//	timezone: Europe/Berlin          # of the schedule; the default is zone
//	missed: last                     # none, last, all, or at most how many
//	deadline: 300                    # seconds, or 5m
//	jitter: 10s
//	keep_expired: false
//	start: 2026-01-01T00:00:00Z      # also end
//	one_off: false
//
// Only task and schedule are needed. Every mistake is told, each as an *EntryError, joined.
func ParseEntry(name string, fields map[string]any, zone *time.Location) (*Entry, error) {
	d := &definition{entry: name, fields: fields, zone: zone}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if !slices.Contains(definitionFields, field) {
			text := "there is no such field"
			if meant := spelling.Nearest(field, definitionFields); meant != "" {
				text += "; is it " + meant + "?"
			}
			d.wrong(field, errors.New(text))
		}
	}
	if v := fields["timezone"]; v != nil {
		if named, err := zoneNamed(v); err != nil {
			d.wrong("timezone", err)
		} else {
			d.zone = named
		}
	}
	e := &Entry{Name: name, Task: d.signature()}
	relative, enabled := false, true
	take(d, "relative", &relative)
	take(d, "enabled", &enabled)
	take(d, "one_off", &e.OneOff)
	take(d, "keep_expired", &e.KeepExpired)
	e.Paused = !enabled
	d.span("deadline", &e.Deadline)
	d.span("jitter", &e.Jitter)
	d.time("start", &e.Start)
	d.time("end", &e.End)
	if v := fields["missed"]; v != nil {
		missed, err := ParseMissed(fmt.Sprint(v))
		if e.Missed = missed; err != nil {
			d.wrong("missed", err)
		}
	}
	var err error
	if e.Schedule, err = ParseSchedule(fields["schedule"], d.zone); err == nil && relative {
		if i, ok := e.Schedule.(*Interval); ok {
			e.Schedule, err = EveryRelative(i.every, d.zone)
		} else {
			d.wrong("relative", errors.New("only an interval can be relative"))
		}
	}
	if err != nil {
		d.wrong("schedule", err)
	}
	if len(d.errs) == 0 {
		return e, e.Check()
	}
	return nil, errors.Join(d.errs...)
}

func (d *definition) wrong(field string, err error) {
	d.errs = append(d.errs, &EntryError{d.entry, field, err})
}

// take reads a field that is there.
func take[T any](d *definition, field string, into *T) {
	if v := d.fields[field]; v != nil {
		if err := value.Assign(into, v); err != nil {
			d.wrong(field, err)
		}
	}
}

func (d *definition) span(field string, into *time.Duration) {
	if v := d.fields[field]; v != nil {
		var err error
		if *into, err = parseSpan(v); err != nil {
			d.wrong(field, err)
		}
	}
}

func (d *definition) time(field string, into *time.Time) {
	if v := d.fields[field]; v != nil {
		var err error
		if *into, err = parseMoment(v, d.zone); err != nil {
			d.wrong(field, err)
		}
	}
}

// signature reads what is sent.
func (d *definition) signature() task.Signature {
	dict := map[string]any{}
	switch v := d.fields["task"].(type) {
	case map[string]any:
		dict = maps.Clone(v)
	case string:
		dict["task"] = v
	case nil:
		d.wrong("task", errors.New("there is none"))
		return task.Signature{}
	default:
		d.wrong("task", errors.New("it is the name of a task, or a signature as a map"))
		return task.Signature{}
	}
	for _, field := range []string{"args", "kwargs", "options"} {
		if v := d.fields[field]; v != nil {
			if dict[field] != nil {
				d.wrong(field, errors.New("the signature in task has its own"))
			}
			dict[field] = v
		}
	}
	wire, err := protocol.SignatureFromValue(dict)
	if err != nil {
		d.wrong("task", err)
		return task.Signature{}
	}
	sig := task.SignatureOf(wire)
	if err := sig.CheckOptions(); err != nil {
		d.wrong("options", err)
	}
	return sig
}

// ParseMissed reads "none", "last", "all", or at most how many.
func ParseMissed(text string) (Missed, error) {
	switch text {
	case "last":
		return MissedLast, nil
	case "none":
		return MissedNone, nil
	case "all":
		return MissedAll, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= mostMissed {
		return Missed(n), nil
	}
	return 0, fmt.Errorf("%.40q: it is none, last, all, or a number from 1 to %d", text, mostMissed)
}

// parseSpan reads seconds, or Go's form of a duration.
func parseSpan(v any) (time.Duration, error) {
	var seconds float64
	switch v := v.(type) {
	case time.Duration:
		return v, nil
	case int64:
		seconds = float64(v)
	case float64:
		seconds = v
	case string:
		if d, err := time.ParseDuration(v); err == nil {
			return d, nil
		}
		var err error
		if seconds, err = strconv.ParseFloat(v, 64); err != nil {
			return 0, fmt.Errorf("%.40q: it is a number of seconds, or a duration such as 1m30s", v)
		}
	default:
		return 0, errors.New("it is a number of seconds, or a duration such as 1m30s")
	}
	if !(math.Abs(seconds) < longestInterval.Seconds()+1) {
		return 0, fmt.Errorf("%v seconds is out of bounds: it is at most 100 years", seconds)
	}
	return time.Duration(math.Round(seconds*1e6)) * time.Microsecond, nil
}

// parseMoment reads a time in ISO form; without a zone it is in the given one.
func parseMoment(v any, zone *time.Location) (time.Time, error) {
	if zone == nil {
		zone = time.UTC
	}
	switch v := v.(type) {
	case time.Time:
		return v, nil
	case value.LocalTime:
		t := v.Time
		return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone), nil
	case value.Date:
		return time.Date(v.Year, v.Month, v.Day, 0, 0, 0, 0, zone), nil
	case string:
		for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly} {
			if t, err := time.ParseInLocation(layout, v, zone); err == nil {
				return t, nil
			}
		}
		if t, err := protocol.ParseTime(v); err == nil {
			return t, nil
		}
		return time.Time{}, fmt.Errorf("%.40q: it is a time such as 2026-01-31T12:00:00Z", v)
	}
	return time.Time{}, errors.New("it is a time such as 2026-01-31T12:00:00Z")
}

func zoneNamed(v any) (*time.Location, error) {
	name, ok := v.(string)
	if !ok || name == "" || name == "Local" {
		return nil, errors.New("it is the name of a time zone, such as Europe/Berlin")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%.60q: there is no time zone of this name", name)
	}
	return zone, nil
}

// Definition is the entry as [ParseEntry] reads it. Entries with Make, and schedules that are not of this package, have none.
func (e *Entry) Definition() (map[string]any, error) {
	if e.Make != nil {
		return nil, &EntryError{e.Name, "task", errors.New("what is made at each run cannot be written down")}
	}
	wire, err := e.Task.Wire()
	if err != nil {
		return nil, &EntryError{e.Name, "task", err}
	}
	schedule, zone, err := ScheduleDefinition(e.Schedule)
	if err != nil {
		return nil, &EntryError{e.Name, "schedule", err}
	}
	d := map[string]any{"task": wire.Task, "schedule": schedule}
	if wire.SubtaskType != "" || wire.Immutable || len(wire.Extra) > 0 {
		d["task"] = wire.Value()
	} else {
		for field, v := range map[string]any{"args": wire.Args, "kwargs": wire.Kwargs, "options": wire.Options} {
			if list, ok := v.([]any); ok && len(list) > 0 {
				d[field] = v
			} else if dict, ok := v.(map[string]any); ok && len(dict) > 0 {
				d[field] = v
			}
		}
	}
	if zone != nil { // UTC as well: whoever reads this may have another default
		d["timezone"] = zone.String()
	}
	for field, on := range map[string]bool{"one_off": e.OneOff, "keep_expired": e.KeepExpired} {
		if on {
			d[field] = true
		}
	}
	if e.Paused {
		d["enabled"] = false
	}
	if e.Missed != MissedLast {
		d["missed"] = e.Missed.String()
	}
	for field, span := range map[string]time.Duration{"deadline": e.Deadline, "jitter": e.Jitter} {
		if span != 0 {
			d[field] = span.Seconds()
		}
	}
	for field, at := range map[string]time.Time{"start": e.Start, "end": e.End} {
		if !at.IsZero() {
			d[field] = protocol.FormatTime(at.UTC())
		}
	}
	return d, nil
}
