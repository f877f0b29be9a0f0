package task

import (
	"encoding/json"
	"fmt"

	"github.com/gelery/gelery/protocol"
)

// Tuple is the result's form in documents, with the parents it knows: Celery's AsyncResult.as_tuple. As JSON it is
// [[id, parent], null], or [[id, parent], [member, …]] for a group.
func (h handle) Tuple() protocol.ResultTuple { return h.tuple(map[*handle]*protocol.ResultTuple{}) }

// tuple writes a parent that several members share once; seen has those that are written.
func (h *handle) tuple(seen map[*handle]*protocol.ResultTuple) protocol.ResultTuple {
	t := protocol.ResultTuple{ID: h.id}
	if h.parent != nil {
		if t.Parent = seen[h.parent]; t.Parent == nil {
			parent := h.parent.tuple(seen)
			t.Parent, seen[h.parent] = &parent, &parent
		}
	}
	if h.members != nil {
		t.Children = make([]protocol.ResultTuple, len(h.members))
		for i := range h.members {
			t.Children[i] = h.members[i].tuple(seen)
		}
	}
	return t
}

// MarshalJSON writes the [Result.Tuple].
func (h handle) MarshalJSON() ([]byte, error) {
	t := h.Tuple()
	return json.Marshal(t.Lineage())
}

// handleOf makes the handle of a tuple.
func (c *Client) handleOf(t *protocol.ResultTuple) handle {
	return c.handleFrom(t, map[*protocol.ResultTuple]*handle{})
}

// handleFrom makes a parent that several members share once; seen has those that are made.
func (c *Client) handleFrom(t *protocol.ResultTuple, seen map[*protocol.ResultTuple]*handle) handle {
	h := handle{id: t.ID, client: c}
	if t.Parent != nil {
		if h.parent = seen[t.Parent]; h.parent == nil {
			parent := c.handleFrom(t.Parent, seen)
			h.parent, seen[t.Parent] = &parent, &parent
		}
	}
	if t.Children != nil {
		h.members = make([]handle, len(t.Children))
		for i := range t.Children {
			h.members[i] = c.handleFrom(&t.Children[i], seen)
		}
	}
	return h
}

// ResultFromTuple returns the result that a tuple stands for: Celery's result_from_tuple. v is a [protocol.ResultTuple], its
// value as a document holds it, [[id, parent], children], or that as JSON text in a []byte. Of a group the result is a
// group's, see [Result.Group]; Get of it gives what its members returned as a list.
func (c *Client) ResultFromTuple(v any) (*Result[any], error) {
	switch v := v.(type) {
	case protocol.ResultTuple:
		return &Result[any]{c.handleOf(&v)}, nil
	case *protocol.ResultTuple:
		return &Result[any]{c.handleOf(v)}, nil
	case json.RawMessage:
		return c.ResultFromTuple([]byte(v))
	case []byte:
		var document any
		if err := json.Unmarshal(v, &document); err != nil {
			return nil, fmt.Errorf("a result tuple: %w", err)
		}
		return c.ResultFromTuple(document)
	}
	t, err := protocol.ResultTupleFromValue(v)
	if err != nil {
		return nil, err
	}
	return &Result[any]{c.handleOf(&t)}, nil
}
