package sql

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// maxRepr bounds the text of an exception's argument that has no pickle, in bytes.
const maxRepr = 4096

// celeryLayout is that of Celery's own tables.
type celeryLayout struct {
	codec          backends.Codec // of arguments
	time           func(time.Time) any
	names, schemas map[string]string
}

func (l celeryLayout) tables() (task, group Table, sequences [2]string) {
	task, group = Table{Name: "celery_taskmeta"}, Table{Name: "celery_tasksetmeta", Group: true}
	for kind, t := range map[string]*Table{"task": &task, "group": &group} {
		if name := l.names[kind]; name != "" {
			t.Name = name
		}
		t.Schema = l.schemas[kind]
	}
	return task, group, [2]string{task.Sequence(), group.Sequence()}
}

func (celeryLayout) howToMake() string { return "create_tables_at_setup is off" }
func (celeryLayout) key() string       { return "task_id" }
func (celeryLayout) groupKey() string  { return "taskset_id" }

var celeryColumns = []column{{name: "status"}, {name: "result"}, {name: "date_done"}, {name: "traceback"},
	{name: "name", optional: true}, {name: "args", optional: true}, {name: "kwargs", optional: true},
	{name: "worker", optional: true}, {name: "retries", optional: true}, {name: "queue", optional: true}}

func (celeryLayout) columns() []column { return celeryColumns }

// values dates a state that is not final too, unlike Celery, so that a cleanup finds what became of nothing.
func (l celeryLayout) values(m *protocol.ResultMeta, now time.Time) ([]any, error) {
	var done any
	switch {
	case !m.DateDone.IsZero():
		done = l.time(m.DateDone.UTC())
	case !m.Status.Ready():
		done = l.time(now.UTC())
	}
	status, err := identifier("the state", string(m.Status))
	if err != nil {
		return nil, err
	}
	result, err := pickled(m)
	if err != nil {
		return nil, err
	}
	values := []any{status, result, done, text(m.Traceback)}
	e := m.Extended
	if e == nil {
		return append(values, nil, nil, nil, nil, nil, nil), nil
	}
	args, kwargs, err := l.arguments(e)
	if err != nil {
		return nil, err
	}
	return append(values, text(e.Name), args, kwargs, text(e.Worker), int64(e.Retries), text(e.Queue)), nil
}

func (l celeryLayout) arguments(e *protocol.ExtendedMeta) (args, kwargs []byte, err error) {
	list, dict := e.Args, e.Kwargs
	if list == nil {
		list = []any{}
	}
	if dict == nil {
		dict = map[string]any{}
	}
	if args, err = l.codec.Serializer.Append(nil, list); err == nil {
		kwargs, err = l.codec.Serializer.Append(nil, dict)
	}
	return args, kwargs, err
}

// pickled is the column result. None is NULL there, as SQLAlchemy has it.
func pickled(m *protocol.ResultMeta) (any, error) {
	if m.Exception == nil {
		if m.Result == nil {
			return nil, nil
		}
		return serialization.AppendPickle(nil, m.Result)
	}
	args := make(serialization.Tuple, len(m.Exception.Args))
	for i, arg := range m.Exception.Args {
		args[i] = arg
		if _, err := serialization.AppendPickle(nil, arg); err != nil {
			args[i] = value.Repr(arg, maxRepr)
		}
	}
	var module any
	if m.Exception.Module != "" {
		module = m.Exception.Module
	}
	return serialization.AppendPickle(nil, serialization.Dict{"exc_type": m.Exception.Type, "exc_message": args, "exc_module": module})
}

func (l celeryLayout) Decode(id string, packed []byte) (*protocol.ResultMeta, error) {
	f, err := unpack(packed, len(celeryColumns))
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	m := &protocol.ResultMeta{TaskID: id, Status: protocol.State(f[0].String), Traceback: f[3].String}
	if m.Status == "" {
		return nil, &backends.DecodeError{TaskID: id, Err: errors.New("a stored result has no status")}
	}
	if m.Status.Ready() {
		m.DateDone = date(f[2])
	}
	var result any
	if f[1].Valid {
		if result, err = serialization.DecodePickle([]byte(f[1].String)); err != nil {
			return nil, &backends.DecodeError{TaskID: id, Err: err}
		}
	}
	if o := findObject(result); o != nil {
		if !m.Status.Exceptional() || o != result {
			return nil, &backends.DecodeError{TaskID: id, Err: fmt.Errorf("pickle of class %.100q is not supported", o.Module+"."+o.Name)}
		}
		m.Exception = &protocol.Exception{Type: o.Name, Module: o.Module, Args: plain(o.Args)} // result_serializer pickle
	} else if m.Status.Exceptional() && (result != nil || m.Status != protocol.Retry) {
		m.Exception = protocol.ExceptionFromValue(result)
	} else {
		m.Result = result
	}
	if f[4].Valid {
		m.Extended = l.extended(f[4:])
	}
	return m, nil
}

// extended reads what result_extended has added. Arguments that cannot be read are left out: they are for a person.
func (l celeryLayout) extended(f []field) *protocol.ExtendedMeta {
	e := &protocol.ExtendedMeta{Name: f[0].String, Worker: f[3].String, Queue: f[5].String}
	e.Retries, _ = strconv.Atoi(f[4].String)
	if v, err := l.codec.Serializer.Decode([]byte(f[1].String)); err == nil {
		e.Args, _ = v.([]any)
	}
	if v, err := l.codec.Serializer.Decode([]byte(f[2].String)); err == nil {
		e.Kwargs, _ = v.(map[string]any)
	}
	return e
}

// findObject finds a call of an unknown class in what DecodePickle has read.
func findObject(v any) *serialization.Object {
	switch v := v.(type) {
	case *serialization.Object:
		return v
	case []any:
		for _, item := range v {
			if o := findObject(item); o != nil {
				return o
			}
		}
	case map[string]any:
		for _, item := range v {
			if o := findObject(item); o != nil {
				return o
			}
		}
	}
	return nil
}

// plain replaces arguments that are objects, or hold some, by the names of their classes.
func plain(args []any) []any {
	for i, arg := range args {
		if o := findObject(arg); o != nil {
			args[i] = "<" + o.Module + "." + o.Name + ">"
		}
	}
	return args
}

var celeryGroupColumns = []column{{name: "result"}, {name: "date_done"}}

func (celeryLayout) groupColumns() []column { return celeryGroupColumns }

// groupValues makes what unpickles to celery.result.GroupResult, of the application of whoever reads it.
func (l celeryLayout) groupValues(g *protocol.ResultTuple, now time.Time) ([]any, error) {
	data, err := serialization.AppendPickle(nil, groupObject(g))
	return []any{data, l.time(now.UTC())}, err
}

const resultModule = "celery.result"

func groupObject(g *protocol.ResultTuple) *serialization.Object {
	members := make([]*serialization.Object, len(g.Children))
	for i := range g.Children {
		members[i] = resultObject(&g.Children[i])
	}
	args := []any{g.ID, members}
	if g.Parent != nil {
		args = append(args, resultObject(g.Parent))
	}
	return &serialization.Object{Module: resultModule, Name: "GroupResult", Args: args}
}

func resultObject(t *protocol.ResultTuple) *serialization.Object {
	if t.Children != nil {
		return groupObject(t)
	}
	args := []any{t.ID}
	if t.Parent != nil { // AsyncResult(id, backend, task_name, app, parent)
		args = append(args, nil, nil, nil, resultObject(t.Parent))
	}
	return &serialization.Object{Module: resultModule, Name: "AsyncResult", Args: args}
}

func (l celeryLayout) decodeGroup(id string, f []field) (*protocol.ResultTuple, error) {
	v, err := serialization.DecodePickle([]byte(f[0].String))
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	t, err := tupleOf(v)
	if err == nil && t.Children == nil {
		err = errors.New("what is stored is not a group")
	}
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	return t, nil
}

// tupleOf reads a result object: GroupResult(id, results, parent), AsyncResult(id, backend, task_name, app, parent).
func tupleOf(v any) (*protocol.ResultTuple, error) {
	o, ok := v.(*serialization.Object)
	if ok && o.Module == "celery.app.base" && o.Name == "_unpickle_appattr" && len(o.Args) == 2 { // an application's own class
		name, _ := o.Args[0].(string)
		args, _ := o.Args[1].([]any)
		o = &serialization.Object{Module: resultModule, Name: name, Args: args}
	}
	if !ok || o.Module != resultModule || len(o.Args) == 0 {
		return nil, errors.New("what is stored is no result of Celery")
	}
	id, ok := o.Args[0].(string)
	if !ok {
		return nil, errors.New("a result in a group has no id")
	}
	t, parent := &protocol.ResultTuple{ID: id}, 4
	if o.Name == "GroupResult" {
		parent = 2
		t.Children = []protocol.ResultTuple{}
		var members []any
		if len(o.Args) > 1 {
			members, _ = o.Args[1].([]any)
		}
		for _, m := range members {
			child, err := tupleOf(m)
			if err != nil {
				return nil, err
			}
			t.Children = append(t.Children, *child)
		}
	}
	if len(o.Args) > parent && o.Args[parent] != nil {
		p, err := tupleOf(o.Args[parent])
		if err != nil {
			return nil, err
		}
		t.Parent = p
	}
	return t, nil
}

func (l celeryLayout) claimValues(holder string, now time.Time) ([]any, error) {
	data, err := serialization.AppendPickle(nil, holder)
	return []any{data, l.time(now.UTC())}, err
}

func (celeryLayout) claimHolder(f []field) (string, error) {
	v, err := serialization.DecodePickle([]byte(f[0].String))
	holder, _ := v.(string)
	return holder, err
}
