package protocol

import (
	"errors"
	"fmt"

	"github.com/gelery/gelery/protocol/serialization"
)

// AppendChordPart appends a finished part of a chord as Celery's Redis backend keeps it until all are there: the list of 1,
// the task's id, its state, and its result or exception. Same parts are same bytes, also from Python. The first key bytes of
// what is appended are those that all outcomes of the task have in common, and no other task's has. It refuses what
// AppendResult refuses.
func AppendChordPart(dst []byte, m *ResultMeta, s serialization.Serializer) (part []byte, key int, err error) {
	if err := m.Check(); err != nil {
		return nil, 0, err
	}
	start := len(dst)
	if s.ContentType() == serialization.JSON.ContentType() {
		part, key, err = appendChordPartJSON(dst, m, s)
	} else {
		part, key, err = appendChordPartValue(dst, m, s)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("result of task %s: %w", m.TaskID, err)
	}
	return part, key - start, nil
}

// appendChordPartJSON is AppendChordPart's; key is where the common bytes end in dst.
func appendChordPartJSON(dst []byte, m *ResultMeta, s serialization.Serializer) (_ []byte, key int, err error) {
	dst = append(dst, "[1, "...)
	dst = serialization.AppendString(dst, m.TaskID)
	dst = append(dst, ", "...)
	key = len(dst)
	dst = serialization.AppendString(dst, string(m.Status))
	dst = append(dst, ", "...)
	if m.Exception != nil {
		dst, err = appendException(dst, m.Exception, s)
	} else {
		dst, err = s.Append(dst, m.Result)
	}
	return append(dst, ']'), key, err
}

// appendChordPartValue is appendChordPartJSON for other serializers. Where the bytes of two outcomes part, the key ends.
func appendChordPartValue(dst []byte, m *ResultMeta, s serialization.Serializer) (_ []byte, key int, err error) {
	result := m.Result
	if m.Exception != nil {
		result = m.Exception.Serializable(s).Value()
	}
	key = len(dst)
	if dst, err = s.Append(dst, []any{int64(1), m.TaskID, string(m.Status), result}); err != nil {
		return nil, 0, err
	}
	other, err := s.Append(nil, []any{int64(1), m.TaskID, nil, nil})
	if err != nil {
		return nil, 0, err
	}
	for i := 0; key < len(dst) && i < len(other) && dst[key] == other[i]; i++ {
		key++
	}
	return dst, key, nil
}

// DecodeChordPart reads what AppendChordPart or Celery has written: TaskID, Status, and Result or Exception are set.
func DecodeChordPart(data []byte, s serialization.Serializer) (*ResultMeta, error) {
	v, err := s.Decode(data)
	if err != nil {
		return nil, err
	}
	list, ok := v.([]any)
	if !ok || len(list) != 4 {
		return nil, errors.New("a part of a chord is not a list of four")
	}
	id, hasID := list[1].(string)
	status, hasStatus := list[2].(string)
	if !hasID || id == "" || !hasStatus || status == "" {
		return nil, errors.New("a part of a chord has no task id or no state")
	}
	return ResultFromValue(map[string]any{"task_id": id, "status": status, "result": list[3]})
}
