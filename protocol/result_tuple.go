package protocol

import (
	"fmt"

	"github.com/gelery/gelery/protocol/serialization"
)

// ResultTuple is Celery's [[id, parent], children] form of a result. Children is nil for a task and not nil for a
// group.
type ResultTuple struct {
	ID       string
	Parent   *ResultTuple
	Children []ResultTuple
}

// Value is the tuple as documents hold it.
func (t *ResultTuple) Value() any {
	var parent, children any
	if t.Parent != nil {
		parent = t.Parent.Value()
	}
	if t.Children != nil {
		list := make([]any, len(t.Children))
		for i := range t.Children {
			list[i] = t.Children[i].Value()
		}
		children = list
	}
	return []any{[]any{t.ID, parent}, children}
}

// ResultTupleFromValue reads a tuple from its canonical value. As in Celery a bare id may stand for [id, parent].
func ResultTupleFromValue(v any) (ResultTuple, error) {
	var t ResultTuple
	pair, ok := v.([]any)
	if !ok || len(pair) != 2 {
		return t, fmt.Errorf("a result tuple is not [[id, parent], children]")
	}
	switch head := pair[0].(type) {
	case string:
		t.ID = head
	case []any:
		if len(head) == 0 || len(head) > 2 {
			return t, fmt.Errorf("the head of a result tuple has %d elements, not [id, parent]", len(head))
		}
		if t.ID, ok = head[0].(string); !ok {
			return t, fmt.Errorf("the id in a result tuple is not a string")
		}
		if len(head) == 2 && head[1] != nil {
			parent, err := ResultTupleFromValue(head[1])
			if err != nil {
				return t, err
			}
			t.Parent = &parent
		}
	default:
		return t, fmt.Errorf("the head of a result tuple is not [id, parent]")
	}
	if t.ID == "" {
		return t, fmt.Errorf("the id in a result tuple is empty")
	}
	switch children := pair[1].(type) {
	case nil:
	case []any:
		t.Children = make([]ResultTuple, len(children))
		for i, child := range children {
			var err error
			if t.Children[i], err = ResultTupleFromValue(child); err != nil {
				return t, err
			}
		}
	default:
		return t, fmt.Errorf("the children in a result tuple are not a list")
	}
	return t, nil
}

// appendTuple appends the tuple as JSON.
func appendTuple(dst []byte, t *ResultTuple) []byte {
	dst = append(dst, "[["...)
	dst = serialization.AppendString(dst, t.ID)
	dst = append(dst, ", "...)
	if t.Parent == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendTuple(dst, t.Parent)
	}
	dst = append(dst, "], "...)
	if t.Children == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendTuples(dst, t.Children)
	}
	return append(dst, ']')
}

func appendTuples(dst []byte, list []ResultTuple) []byte {
	dst = append(dst, '[')
	for i := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendTuple(dst, &list[i])
	}
	return append(dst, ']')
}
