package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// AppendResult appends the meta document of a task as Celery's backends store it, with its keys in Python's order:
// status is the first, which SuccessPrefixes builds on. An argument of the exception that cannot be serialized is replaced
// by its repr, as in Celery; a result or a custom meta that cannot is an error, and so are an empty TaskID or Status
// and a FAILURE or REVOKED without Exception, on which Python clients break.
func AppendResult(dst []byte, m *ResultMeta, s serialization.Serializer) ([]byte, error) {
	err := m.Check()
	if err != nil {
		return nil, err
	}
	if s.ContentType() == serialization.JSON.ContentType() {
		dst, err = appendResultJSON(dst, m, s)
	} else {
		dst, err = appendResultFields(dst, m, s)
	}
	if err != nil {
		return nil, fmt.Errorf("result of task %s: %w", m.TaskID, err)
	}
	return dst, nil
}

// Check finds what no reader could make sense of.
func (m *ResultMeta) Check() error {
	switch {
	case m.TaskID == "":
		return errors.New("result without a task id")
	case m.Status == "":
		return fmt.Errorf("result of task %s has no status", m.TaskID)
	case m.Exception == nil && (m.Status == Failure || m.Status == Revoked):
		return fmt.Errorf("result of task %s is %s without an exception", m.TaskID, m.Status)
	}
	return nil
}

// appendResultJSON writes the document piece by piece: only the user's own value goes through the serializer.
func appendResultJSON(dst []byte, m *ResultMeta, s serialization.Serializer) ([]byte, error) {
	dst = slices.Grow(dst, 256)
	dst = append(dst, '{')
	dst, err := appendOutcomeJSON(dst, m, s)
	if err != nil {
		return nil, err
	}
	dst = append(dst, `, "date_done": `...)
	if noDate(m.DateDone) {
		dst = append(dst, "null"...)
	} else {
		dst = append(dst, '"')
		dst = value.AppendISO(dst, m.DateDone.UTC())
		dst = append(dst, '"')
	}
	if m.GroupID != "" {
		dst = append(dst, `, "group_id": `...)
		dst = serialization.AppendString(dst, m.GroupID)
	}
	if m.ParentID != "" {
		dst = append(dst, `, "parent_id": `...)
		dst = serialization.AppendString(dst, m.ParentID)
	}
	if m.Extended != nil {
		for _, f := range m.Extended.fields(nil) {
			dst = append(dst, ", "...)
			dst = serialization.AppendString(dst, f.key)
			dst = append(dst, ": "...)
			if dst, err = s.Append(dst, f.value); err != nil {
				return nil, fmt.Errorf("%s: %w", f.key, err)
			}
		}
	}
	dst = append(dst, `, "task_id": `...)
	dst = serialization.AppendString(dst, m.TaskID)
	return append(dst, '}'), nil
}

// appendOutcomeJSON appends the four members that a stored document and a reply have in common, in their order.
func appendOutcomeJSON(dst []byte, m *ResultMeta, s serialization.Serializer) ([]byte, error) {
	dst = append(dst, `"status": `...)
	dst = serialization.AppendString(dst, string(m.Status))
	dst = append(dst, `, "result": `...)
	var err error
	if m.Exception != nil {
		dst, err = appendException(dst, m.Exception, s)
	} else {
		dst, err = s.Append(dst, m.Result)
	}
	if err != nil {
		return nil, err
	}
	dst = append(dst, `, "traceback": `...)
	dst = appendTextOrNull(dst, m.Traceback)
	dst = append(dst, `, "children": `...)
	return appendTuples(dst, m.Children, maxParents), nil
}

func appendTextOrNull(dst []byte, text string) []byte {
	if text == "" {
		return append(dst, "null"...)
	}
	return serialization.AppendString(dst, text)
}

func appendException(dst []byte, e *Exception, s serialization.Serializer) ([]byte, error) {
	dst = append(dst, `{"exc_type": `...)
	dst = serialization.AppendString(dst, e.Type)
	dst = append(dst, `, "exc_message": `...)
	dst, err := s.Append(dst, serializableArgs(e.Args, s))
	if err != nil {
		return nil, err
	}
	dst = append(dst, `, "exc_module": `...)
	dst = appendTextOrNull(dst, e.Module)
	return append(dst, '}'), nil
}

// Serializable is the exception with those of its arguments that the serializer cannot write replaced by their repr.
func (e *Exception) Serializable(s serialization.Serializer) *Exception {
	return &Exception{Type: e.Type, Module: e.Module, Args: serializableArgs(e.Args, s)}
}

// serializableArgs replaces what the serializer cannot write by its repr. Exceptions are rare and their usual
// arguments are texts, so nothing is tried for those.
func serializableArgs(args []any, s serialization.Serializer) []any {
	out := make([]any, len(args))
	for i, arg := range args {
		out[i] = arg
		if _, ok := arg.(string); ok {
			continue
		}
		if _, err := s.Append(nil, arg); err != nil {
			out[i] = value.Repr(arg, maxRepr)
		}
	}
	return out
}

// resultField is one key of a meta document.
type resultField struct {
	key   string
	value any
}

// fields lists what result_extended adds, in Python's order. A stamp is a key of its own, unless that would replace
// one of the document's.
func (e *ExtendedMeta) fields(list []resultField) []resultField {
	args, kwargs := e.Args, e.Kwargs
	if args == nil {
		args = []any{}
	}
	if kwargs == nil {
		kwargs = map[string]any{}
	}
	list = append(list, resultField{"name", e.Name}, resultField{"args", args}, resultField{"kwargs", kwargs},
		resultField{"worker", e.Worker}, resultField{"retries", int64(e.Retries)}, resultField{"queue", e.Queue})
	if len(e.StampedHeaders) == 0 {
		return list
	}
	names := make([]any, len(e.StampedHeaders))
	for i, name := range e.StampedHeaders {
		names[i] = name
	}
	list = append(list, resultField{"stamped_headers", names})
	written := make(map[string]bool, len(e.StampedHeaders))
	for _, name := range e.StampedHeaders {
		if v, ok := e.Stamps[name]; ok && !isResultKey(name) && !written[name] {
			list = append(list, resultField{name, v})
			written[name] = true
		}
	}
	return list
}

func isResultKey(name string) bool {
	switch name {
	case "status", "result", "traceback", "children", "date_done", "group_id", "parent_id", "task_id", "name", "args",
		"kwargs", "worker", "retries", "queue", "stamped_headers":
		return true
	}
	return false
}

// appendResultFields writes the document with a serializer whose text does not compose as JSON's does.
func appendResultFields(dst []byte, m *ResultMeta, s serialization.Serializer) ([]byte, error) {
	list := m.outcomeFields(nil, s)
	var done any
	if !noDate(m.DateDone) {
		done = FormatTime(m.DateDone)
	}
	list = append(list, resultField{"date_done", done})
	if m.GroupID != "" {
		list = append(list, resultField{"group_id", m.GroupID})
	}
	if m.ParentID != "" {
		list = append(list, resultField{"parent_id", m.ParentID})
	}
	if m.Extended != nil {
		list = m.Extended.fields(list)
	}
	return appendFields(dst, append(list, resultField{"task_id", m.TaskID}), s)
}

// outcomeFields is appendOutcomeJSON for other serializers.
func (m *ResultMeta) outcomeFields(list []resultField, s serialization.Serializer) []resultField {
	result := m.Result
	if m.Exception != nil {
		result = m.Exception.Serializable(s).Value()
	}
	children := make([]any, len(m.Children))
	for i := range m.Children {
		children[i] = m.Children[i].Value()
	}
	return append(list, resultField{"status", string(m.Status)}, resultField{"result", result},
		resultField{"traceback", textOrNil(m.Traceback)}, resultField{"children", children})
}

func appendFields(dst []byte, list []resultField, s serialization.Serializer) ([]byte, error) {
	switch s.Name() {
	case "msgpack":
		return appendMsgPackMap(dst, list, s)
	case "yaml":
		return appendYAMLMap(dst, list, s)
	}
	object := make(map[string]any, len(list))
	for _, f := range list {
		object[f.key] = f.value
	}
	return s.Append(dst, object)
}

// appendMsgPackMap keeps the order of the keys, which a Go map would lose.
func appendMsgPackMap(dst []byte, list []resultField, s serialization.Serializer) ([]byte, error) {
	if n := len(list); n < 16 {
		dst = append(dst, 0x80|byte(n))
	} else {
		dst = append(dst, 0xDE, byte(n>>8), byte(n))
	}
	for _, f := range list {
		var err error
		if dst, err = s.Append(dst, f.key); err != nil {
			return nil, err
		}
		if dst, err = s.Append(dst, f.value); err != nil {
			return nil, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	return dst, nil
}

// appendYAMLMap writes a line for each key, as PyYAML does, so that the status has the line SuccessLine looks for.
func appendYAMLMap(dst []byte, list []resultField, s serialization.Serializer) ([]byte, error) {
	for _, f := range list {
		if f.key == "status" && f.value == string(Success) {
			dst = append(append(dst, yamlSuccess...), '\n')
			continue
		}
		var err error
		if dst, err = s.Append(dst, f.key); err != nil {
			return nil, err
		}
		dst = append(bytes.TrimRight(dst, "\n"), ": "...)
		if dst, err = s.Append(dst, f.value); err != nil {
			return nil, fmt.Errorf("%s: %w", f.key, err)
		}
	}
	return dst, nil
}

// DecodeResult reads a stored meta document as any Celery version writes it, and as other writers do: only status is
// needed. A FAILURE or REVOKED has an Exception afterwards, whatever its result was; a RETRY may have none. Children of
// a shape nobody knows and a date_done nobody can read count as absent; a date without an offset is UTC.
func DecodeResult(data []byte, s serialization.Serializer) (*ResultMeta, error) {
	v, err := s.Decode(data)
	if err != nil {
		return nil, err
	}
	return ResultFromValue(v)
}

// ResultFromValue is DecodeResult for a document that was decoded already.
func ResultFromValue(v any) (*ResultMeta, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a stored result is not an object")
	}
	m := &ResultMeta{Result: object["result"]}
	m.TaskID, _ = object["task_id"].(string)
	status, _ := object["status"].(string)
	if status == "" {
		return nil, errors.New("a stored result has no status")
	}
	m.Status = State(status)
	if m.Status.Exceptional() && (m.Result != nil || m.Status != Retry) {
		m.Exception, m.Result = ExceptionFromValue(m.Result), nil
	}
	m.Traceback, _ = object["traceback"].(string)
	m.GroupID, _ = object["group_id"].(string)
	m.ParentID, _ = object["parent_id"].(string)
	m.DateDone = resultTime(object["date_done"])
	m.Children = resultChildren(object["children"])
	if _, extended := object["name"]; extended {
		m.Extended = extendedMeta(object)
	}
	return m, nil
}

func resultTime(v any) (t time.Time) {
	switch v := v.(type) {
	case string:
		t, _ = ParseTime(v)
	case time.Time:
		t = v
	case value.LocalTime:
		t = v.Time
	}
	if noDate(t) {
		return time.Time{}
	}
	return t
}

// noDate reports whether t is unset, or no date to Python, which knows the years 1 to 9999.
func noDate(t time.Time) bool { return t.IsZero() || value.CheckTime(t.UTC()) != nil }

func resultChildren(v any) []ResultTuple {
	list, _ := v.([]any)
	if len(list) == 0 {
		return nil
	}
	children := make([]ResultTuple, 0, len(list))
	for _, item := range list {
		child, err := ResultTupleFromValue(item)
		if err != nil {
			return nil
		}
		children = append(children, child)
	}
	return children
}

func extendedMeta(object map[string]any) *ExtendedMeta {
	e := &ExtendedMeta{}
	e.Name, _ = object["name"].(string)
	e.Args, _ = object["args"].([]any)
	e.Kwargs, _ = object["kwargs"].(map[string]any)
	e.Worker, _ = object["worker"].(string)
	e.Queue, _ = object["queue"].(string)
	retries, _ := object["retries"].(int64)
	e.Retries = int(retries)
	names, _ := object["stamped_headers"].([]any)
	for _, item := range names {
		name, ok := item.(string)
		if !ok {
			continue
		}
		e.StampedHeaders = append(e.StampedHeaders, name)
		if v, ok := object[name]; ok && !isResultKey(name) {
			if e.Stamps == nil {
				e.Stamps = make(map[string]any)
			}
			e.Stamps[name] = v
		}
	}
	return e
}

const yamlSuccess = "status: SUCCESS"

var (
	jsonSuccess    = []string{`{"status": "SUCCESS"`, `{"status":"SUCCESS"`}
	msgPackSuccess = func() (prefixes []string) {
		const first = "\xa6status\xa7SUCCESS"
		for n := 1; n < 16; n++ {
			prefixes = append(prefixes, string([]byte{0x80 | byte(n)})+first)
		}
		for n := 16; n < 32; n++ { // a document with result_extended and stamps
			prefixes = append(prefixes, string([]byte{0xDE, 0, byte(n)})+first)
		}
		return prefixes
	}()
)

// SuccessPrefixes lists the beginnings by which a stored SUCCESS is known without decoding it, for a script inside
// Redis. It is empty for a serializer that has none, see SuccessLine. The list is not to be changed.
func SuccessPrefixes(serializerName string) []string {
	switch serializerName {
	case "json":
		return jsonSuccess
	case "msgpack":
		return msgPackSuccess
	}
	return nil
}

// SuccessLine is the line that is in a stored SUCCESS and in no other document, for a serializer that sorts its keys:
// yaml. It is empty for the others.
func SuccessLine(serializerName string) string {
	if serializerName == "yaml" {
		return yamlSuccess
	}
	return ""
}
