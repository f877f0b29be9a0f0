package sql

import (
	"encoding/base64"
	"errors"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// djangoLayout is that of django-celery-results. Values are documents of the result serializer there, base64 where that
// is binary.
type djangoLayout struct {
	codec backends.Codec
	time  func(time.Time) any
}

func (djangoLayout) tables() (task, group Table, sequences [2]string) {
	return Table{Name: "django_celery_results_taskresult"}, Table{Name: "django_celery_results_groupresult", Group: true}, sequences
}

func (djangoLayout) howToMake() string {
	return "Django makes its tables: manage.py migrate django_celery_results"
}
func (djangoLayout) key() string      { return "task_id" }
func (djangoLayout) groupKey() string { return "group_id" }

var djangoColumns = []column{{name: "status"}, {name: "result"}, {name: "date_done"}, {name: "traceback"}, {name: "meta"},
	{name: "task_name"}, {name: "task_args"}, {name: "task_kwargs"}, {name: "worker"}, {name: "content_type"}, {name: "content_encoding"},
	{name: "date_created", again: keep}, {name: "date_started", again: keepIfNull, optional: true},
	{name: "periodic_task_name", again: keepIfNull, optional: true}}

func (djangoLayout) columns() []column { return djangoColumns }

func (l djangoLayout) values(m *protocol.ResultMeta, now time.Time) ([]any, error) {
	status, err := identifier("the state", string(m.Status))
	if err != nil {
		return nil, err
	}
	result := m.Result
	if m.Exception != nil {
		result = m.Exception.Serializable(l.codec.Serializer).Value()
	}
	document, err := l.encode(result)
	if err != nil {
		return nil, err
	}
	children := make([]any, len(m.Children))
	for i := range m.Children {
		children[i] = m.Children[i].Value()
	}
	meta, err := l.encode(map[string]any{"children": children})
	if err != nil {
		return nil, err
	}
	done := now // a date must be there
	if !m.DateDone.IsZero() {
		done = m.DateDone
	}
	var started any
	if m.Status == protocol.Started {
		started = l.time(now.UTC())
	}
	var name, args, kwargs, worker any
	if e := m.Extended; e != nil {
		name, worker = text(e.Name), text(e.Worker)
		if args, kwargs, err = l.arguments(e); err != nil {
			return nil, err
		}
	}
	s := l.codec.Serializer
	return []any{status, document, l.time(done.UTC()), text(m.Traceback), meta, name, args, kwargs, worker,
		s.ContentType(), s.ContentEncoding(), l.time(now.UTC()), started, nil}, nil
}

func (l djangoLayout) arguments(e *protocol.ExtendedMeta) (args, kwargs any, err error) {
	list, dict := e.Args, e.Kwargs
	if list == nil {
		list = []any{}
	}
	if dict == nil {
		dict = map[string]any{}
	}
	if args, err = l.encode(list); err == nil {
		kwargs, err = l.encode(dict)
	}
	return args, kwargs, err
}

func (l djangoLayout) encode(v any) (string, error) {
	s := l.codec.Serializer
	data, err := s.Append(nil, v)
	if err == nil && s.ContentEncoding() == "binary" {
		return base64.StdEncoding.EncodeToString(data), nil
	}
	return string(data), err
}

// decode reads a document; NULL and an empty one are nil.
func (l djangoLayout) decode(f, encoding field) (any, error) {
	data := []byte(f.String)
	if len(data) == 0 {
		return nil, nil
	}
	if encoding.String == "binary" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(f.String); err != nil {
			return nil, err
		}
	}
	return l.codec.Serializer.Decode(data)
}

func (l djangoLayout) Decode(id string, packed []byte) (*protocol.ResultMeta, error) {
	f, err := unpack(packed, len(djangoColumns))
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	encoding := f[10]
	result, err := l.decode(f[1], encoding)
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	object := map[string]any{"status": f[0].String, "result": result}
	if f[3].Valid {
		object["traceback"] = f[3].String
	}
	if meta, err := l.decode(f[4], encoding); err == nil { // for a person; children that nobody can read are none
		if m, ok := meta.(map[string]any); ok {
			object["children"] = m["children"]
		}
	}
	m, err := protocol.ResultFromValue(object)
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	m.TaskID = id
	if m.Status.Ready() {
		m.DateDone = date(f[2])
	}
	if f[5].Valid {
		m.Extended = &protocol.ExtendedMeta{Name: f[5].String, Worker: f[8].String}
		// Python stores their reprs, which are texts: those have no place here.
		if v, err := l.decode(f[6], encoding); err == nil {
			m.Extended.Args, _ = v.([]any)
		}
		if v, err := l.decode(f[7], encoding); err == nil {
			m.Extended.Kwargs, _ = v.(map[string]any)
		}
	}
	return m, nil
}

var djangoGroupColumns = []column{{name: "result"}, {name: "content_type"}, {name: "content_encoding"}, {name: "date_done"},
	{name: "date_created", again: keep}}

func (djangoLayout) groupColumns() []column { return djangoGroupColumns }

func (l djangoLayout) groupValues(g *protocol.ResultTuple, now time.Time) ([]any, error) {
	whole := *g
	if whole.Children == nil { // which would make it a task
		whole.Children = []protocol.ResultTuple{}
	}
	return l.groupRow(whole.Value(), now)
}

func (l djangoLayout) groupRow(v any, now time.Time) ([]any, error) {
	document, err := l.encode(v)
	s, at := l.codec.Serializer, l.time(now.UTC())
	return []any{document, s.ContentType(), s.ContentEncoding(), at, at}, err
}

func (l djangoLayout) claimValues(holder string, now time.Time) ([]any, error) {
	return l.groupRow(holder, now)
}

func (l djangoLayout) claimHolder(f []field) (string, error) {
	v, err := l.decode(f[0], f[2])
	holder, _ := v.(string)
	return holder, err
}

func (l djangoLayout) decodeGroup(id string, f []field) (*protocol.ResultTuple, error) {
	v, err := l.decode(f[0], f[2])
	var t protocol.ResultTuple
	if err == nil {
		t, err = protocol.ResultTupleFromValue(v)
	}
	if err == nil && t.Children == nil {
		err = errors.New("what is stored is not a group")
	}
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	return &t, nil
}
