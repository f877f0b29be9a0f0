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

// maxParents is how many results before a result are written into documents, two levels of nesting each: of a longer chain the last
// ones. Python neither writes nor reads much more than 480, msgpack has 256 levels.
const maxParents = 100

// Value is the tuple as documents hold it, with its hundred nearest parents.
func (t *ResultTuple) Value() any { return t.value(maxParents) }

// Lineage is the tuple with all of its parents, which a document may not hold.
func (t *ResultTuple) Lineage() any { return t.value(-1) }

// value has as many parents as are left, or all if that is negative.
func (t *ResultTuple) value(left int) any {
	var parent, children any
	if t.Parent != nil && left != 0 {
		parent = t.Parent.value(left - 1)
	}
	if t.Children != nil {
		list := make([]any, len(t.Children))
		for i := range t.Children {
			list[i] = t.Children[i].value(left)
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

// appendTuple appends the tuple as JSON, with as many parents as are left.
func appendTuple(dst []byte, t *ResultTuple, left int) []byte {
	dst = append(dst, "[["...)
	dst = serialization.AppendString(dst, t.ID)
	dst = append(dst, ", "...)
	if t.Parent == nil || left == 0 {
		dst = append(dst, "null"...)
	} else {
		dst = appendTuple(dst, t.Parent, left-1)
	}
	dst = append(dst, "], "...)
	if t.Children == nil {
		dst = append(dst, "null"...)
	} else {
		dst = appendTuples(dst, t.Children, left)
	}
	return append(dst, ']')
}

func appendTuples(dst []byte, list []ResultTuple, left int) []byte {
	dst = append(dst, '[')
	for i := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendTuple(dst, &list[i], left)
	}
	return append(dst, ']')
}
