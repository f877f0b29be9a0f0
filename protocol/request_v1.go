package protocol

import (
	"errors"
	"math"
	"time"

	"github.com/gelery/gelery/protocol/value"
)

// readObject reads a protocol 1 body, in which the call and everything about it is one object. Headers that are
// already there, of a message that has both, are left alone.
func (r *Request) readObject(body map[string]any) error {
	if r.Protocol == 1 {
		if task, _ := body["task"].(string); task == "" {
			return &RequestError{Kind: NotATask, Err: errors.New("neither a task header nor a task in the body")}
		}
	}
	utc := true
	if v, ok := body["utc"].(bool); ok {
		utc = v
	}
	f := fields{body: body}
	f.text("task", &r.Task)
	f.text("id", &r.ID)
	f.text("group", &r.Group)
	f.text("taskset", &r.Group) // its older name, which Celery prefers
	f.text("root_id", &r.RootID)
	f.text("parent_id", &r.ParentID)
	f.text("shadow", &r.Shadow)
	f.text("origin", &r.Origin)
	f.int("retries", &r.Retries)
	f.timeLimit(&r.TimeLimit)
	f.time("eta", utc, &r.ETA, &r.eta)
	f.time("expires", utc, &r.Expires, &r.expires)
	if index, ok := body["group_index"]; ok && index != nil && r.GroupIndex == nil {
		r.GroupIndex = new(int)
		f.int("group_index", r.GroupIndex)
	}
	if f.err != nil {
		return f.err
	}
	args, kwargs := body["args"], body["kwargs"]
	if _, ok := body["args"]; !ok {
		args = []any{}
	}
	if _, ok := body["kwargs"]; !ok {
		kwargs = map[string]any{}
	}
	if err := r.readCall(args, kwargs); err != nil {
		return err
	}
	var err error
	if r.Embed.Callbacks, err = signatureList("callbacks", body["callbacks"]); err != nil {
		return err
	}
	if r.Embed.Errbacks, err = signatureList("errbacks", body["errbacks"]); err != nil {
		return err
	}
	r.Embed.Chord, err = optionalSignature("chord", body["chord"])
	r.embedRead = err == nil
	return err
}

// fields takes headers out of a decoded object. A field that is set already keeps its value; null and absent are the
// same; the first value of a wrong kind is the error.
type fields struct {
	body map[string]any
	err  error
}

func (f *fields) wrong(name string) {
	if f.err == nil {
		f.err = malformed("%s in the body has a value of the wrong kind", name)
	}
}

func (f *fields) text(name string, dst *string) {
	switch v := f.body[name].(type) {
	case nil:
	case string:
		if *dst == "" || name == "taskset" && v != "" {
			*dst = v
		}
	default:
		f.wrong(name)
	}
}

func (f *fields) int(name string, dst *int) {
	v := f.body[name]
	if v == nil || *dst != 0 {
		return
	}
	n, ok := number(v)
	if !ok || n != math.Trunc(n) || math.Abs(n) > math.MaxInt32 {
		f.wrong(name)
		return
	}
	*dst = int(n)
}

func (f *fields) timeLimit(dst *TimeLimit) {
	v := f.body["timelimit"]
	if v == nil || *dst != (TimeLimit{}) {
		return
	}
	pair, ok := v.([]any)
	if !ok || len(pair) != 2 {
		f.wrong("timelimit")
		return
	}
	var seconds [2]float64
	for i, v := range pair {
		if v == nil {
			continue
		}
		if seconds[i], ok = number(v); !ok || !(seconds[i] >= 0) || math.IsInf(seconds[i], 0) {
			f.wrong("timelimit")
			return
		}
	}
	*dst = TimeLimit{Hard: seconds[0], Soft: seconds[1]}
}

// time takes a date, as text or as the native value yaml and typed JSON have. With utc false a date without an offset
// is in the local time zone; it is rewritten, because protocol 2 cannot say that.
func (f *fields) time(name string, utc bool, text *string, parsed *time.Time) {
	v := f.body[name]
	if v == nil || *text != "" {
		return
	}
	t, aware := time.Time{}, true
	switch v := v.(type) {
	case string:
		var err error
		if t, aware, err = value.ParseISO(v); err != nil {
			if f.err == nil {
				f.err = malformed("%s: %w", name, err)
			}
			return
		}
		*text = v
	case time.Time:
		t = v
		*text = FormatTime(t)
	case value.LocalTime:
		t, aware = v.Time, false
		*text = FormatTime(t)
	default:
		f.wrong(name)
		return
	}
	if !aware && !utc {
		t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.Local)
		*text = FormatTime(t)
	}
	if value.CheckTime(t.UTC()) != nil {
		f.wrong(name)
		return
	}
	*parsed = t
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
