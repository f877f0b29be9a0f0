package redbeat

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/scheduler"
)

// codec turns what Redis has of an entry into the entry, and back.
type codec struct {
	zone *time.Location // of crontabs
}

// raw is what Redis has of an entry: the fields of its hash, "" for one that is not there.
type raw struct{ definition, meta, extra string }

// extraNames are what RedBeat has no words for and can do without: it sends such an entry as if they were not there.
var extraNames = []string{"missed", "deadline", "jitter", "keep_expired", "start"}

// read makes a record of what Redis has. Errors are *scheduler.EntryError, several of them joined.
func (c codec) read(name string, r raw) (rec scheduler.Record, err error) {
	wrong := func(field string, err error) (scheduler.Record, error) {
		return scheduler.Record{}, &scheduler.EntryError{Entry: name, Field: field, Err: err}
	}
	definition, err := dictOf(r.definition)
	if err != nil {
		return wrong("definition", err)
	}
	if named, has := definition["name"]; has && named != name {
		return wrong("name", fmt.Errorf("the definition says %.100v", named))
	}
	extra, err := dictOf(r.extra)
	if err != nil {
		return wrong(extraField, err)
	}
	fields := map[string]any{}
	if whole, ok := extra["definition"].(map[string]any); ok && isPlaceholder(definition) {
		fields = whole
	} else {
		for _, field := range []string{"task", "args", "kwargs", "options", "enabled", "relative"} {
			if v, err := canonical(definition[field]); err != nil {
				return wrong(field, err)
			} else if v != nil {
				fields[field] = v
			}
		}
		schedule, err := c.readSchedule(definition["schedule"])
		if err != nil {
			return wrong("schedule", err)
		}
		if _, plain := definition["schedule"].(map[string]any); plain {
			delete(fields, "relative") // the schedule has its own
		}
		fields["schedule"] = schedule
		for _, field := range extraNames {
			if v := extra[field]; v != nil {
				fields[field] = v
			}
		}
	}
	if rec.Entry, err = scheduler.ParseEntry(name, fields, c.zone); err != nil {
		return scheduler.Record{}, err
	}
	if rec.State, err = readMeta(r.meta); err != nil {
		return wrong(metaField, err)
	}
	rec.Source = source
	return rec, nil
}

// isPlaceholder tells what RedBeat is shown of an entry that it cannot run.
func isPlaceholder(definition map[string]any) bool {
	schedule, _ := definition["schedule"].(map[string]any)
	return schedule[typeKey] == "interval" && schedule["every"] == placeholderEvery
}

// write is what Redis gets of an entry, of which it has had old: its definition and what is ours beside it. What others have
// added to the old definition is kept.
func (c codec) write(e *scheduler.Entry, old raw) (r raw, err error) {
	schedule, ok := c.writeSchedule(e.Schedule)
	plain := *e
	if _, ours := e.Schedule.(*Recurrence); ours {
		plain.Schedule = scheduler.Clocked{} // only its other fields are asked for
	}
	whole, err := plain.Definition()
	if err != nil {
		return raw{}, err
	}
	r.meta = old.meta
	definition, err := dictOf(old.definition)
	if err != nil {
		definition = map[string]any{} // it is put right
	}
	name, isName := whole["task"].(string)
	alone := !ok || !isName || !e.End.IsZero() || e.OneOff
	values := map[string]any{"name": e.Name, "task": name, "args": whole["args"], "kwargs": whole["kwargs"], "options": whole["options"],
		"schedule": schedule, "enabled": !e.Paused}
	for field, empty := range map[string]any{"args": []any{}, "kwargs": map[string]any{}, "options": map[string]any{}} {
		if values[field] == nil {
			values[field] = empty
		}
		v, ok := pythonic(values[field])
		if values[field] = v; !ok {
			alone = true
		}
	}
	extra := map[string]any{}
	if alone {
		if _, ours := e.Schedule.(*Recurrence); ours {
			return raw{}, &scheduler.EntryError{Entry: e.Name, Field: "schedule", Err: errors.New("with an rrule it can have no end, no one_off, and only arguments that RedBeat can hold")}
		}
		values = map[string]any{"name": e.Name, "task": e.Task.Name(), "args": []any{}, "kwargs": map[string]any{}, "options": map[string]any{}, "enabled": false,
			"schedule": map[string]any{typeKey: "interval", "every": placeholderEvery, "relative": false}}
		extra["definition"] = whole
	} else {
		for _, field := range extraNames {
			if v, has := whole[field]; has {
				extra[field] = v
			}
		}
	}
	maps.Copy(definition, values)
	if r.definition, err = textOf(definition); err == nil && len(extra) > 0 {
		r.extra, err = textOf(extra)
	}
	if err != nil {
		return raw{}, &scheduler.EntryError{Entry: e.Name, Err: err}
	}
	return r, nil
}

// pause is r with the entry paused or not, and nothing else changed.
func (c codec) pause(r raw, paused bool) (raw, error) {
	definition, err := dictOf(r.definition)
	if err != nil {
		return raw{}, err
	}
	extra, err := dictOf(r.extra)
	if err != nil {
		return raw{}, err
	}
	if whole, ok := extra["definition"].(map[string]any); ok && isPlaceholder(definition) {
		whole["enabled"] = !paused
		r.extra, err = textOf(extra)
	} else {
		definition["enabled"] = !paused
		r.definition, err = textOf(definition)
	}
	return r, err
}

// alone tells whether RedBeat leaves the entry alone.
func (c codec) alone(r raw) bool {
	if r.extra == "" {
		return false
	}
	definition, err := dictOf(r.definition)
	return err == nil && isPlaceholder(definition)
}

// readMeta reads what became of an entry. No meta, or no last_run_at in it, means that it never ran.
func readMeta(text string) (s scheduler.State, err error) {
	meta, err := dictOf(text)
	if err != nil {
		return s, err
	}
	if at := meta["last_run_at"]; at != nil {
		if s.LastRunAt, err = readDate(at); err != nil {
			return s, fmt.Errorf("last_run_at: %w", err)
		}
		s.LastRunAt = s.LastRunAt.UTC()
	}
	s.TotalRunCount, _ = meta["total_run_count"].(int64)
	return s, nil
}

// writeMeta is the meta of a state, with what else old says.
func writeMeta(s scheduler.State, old string) (string, error) {
	meta, err := dictOf(old)
	if err != nil {
		meta = map[string]any{}
	}
	meta["last_run_at"], meta["total_run_count"] = nil, s.TotalRunCount
	if !s.LastRunAt.IsZero() {
		meta["last_run_at"] = dateDict(s.LastRunAt)
	}
	return textOf(meta)
}

// dictOf reads an object; "" is an empty one.
func dictOf(text string) (map[string]any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	v, err := serialization.DecodeJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	dict, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is not an object")
	}
	return dict, nil
}

func textOf(dict map[string]any) (string, error) {
	text, err := serialization.AppendJSON(nil, dict)
	return string(text), err
}

// check refuses entries whose names would be others' keys.
func check(e *scheduler.Entry) error {
	if err := e.Check(); err != nil {
		return err
	}
	if reserved(e.Name) {
		return &scheduler.EntryError{Entry: e.Name, Field: "name", Err: errors.New("it begins with a colon, as RedBeat's own keys do")}
	}
	return nil
}
