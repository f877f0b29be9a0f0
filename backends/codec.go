package backends

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

// Codec writes and reads meta documents with the serializer of some Options, for drivers that store documents.
type Codec struct{ Serializer serialization.Serializer }

// NewCodec finds the serializer and makes sure that what it writes may be read again.
func NewCodec(o Options) (Codec, error) {
	name := o.Serializer
	if name == "" {
		name = "json"
	}
	s, ok := serialization.Lookup(name)
	if !ok {
		return Codec{}, fmt.Errorf("result serializer %q is unknown", name)
	}
	if !reflect.ValueOf(o.Accept).IsZero() && !o.Accept.Allows(s.ContentType()) {
		return Codec{}, fmt.Errorf("result serializer %q is not among the accepted contents", name)
	}
	return Codec{s}, nil
}

// Append appends the document of m to dst. Its errors are *EncodeError.
func (c Codec) Append(dst []byte, m *protocol.ResultMeta) ([]byte, error) {
	dst, err := protocol.AppendResult(dst, m, c.Serializer)
	if err != nil {
		return nil, &EncodeError{TaskID: m.TaskID, Err: err}
	}
	return dst, nil
}

// Decode reads the document stored for a task and gives it that task's id, whatever it says itself. Its errors are
// *DecodeError.
func (c Codec) Decode(id string, data []byte) (*protocol.ResultMeta, error) {
	m, err := protocol.DecodeResult(data, c.Serializer)
	if err != nil {
		return nil, &DecodeError{TaskID: id, Err: err}
	}
	m.TaskID = id
	return m, nil
}

// AppendGroup appends the document of a saved group, of which Celery's GroupResult.save stores a single member: result, its
// tuple. Its errors are *EncodeError.
func (c Codec) AppendGroup(dst []byte, group *protocol.ResultTuple) ([]byte, error) {
	if group.ID == "" {
		return nil, &EncodeError{Err: errors.New("a group without an id")}
	}
	whole := *group
	if whole.Children == nil { // which would make it a task
		whole.Children = []protocol.ResultTuple{}
	}
	dst, err := c.Serializer.Append(dst, map[string]any{"result": whole.Value()})
	if err != nil {
		return nil, &EncodeError{TaskID: group.ID, Err: err}
	}
	return dst, nil
}

// DecodeGroup reads the document of a saved group. Its errors are *DecodeError.
func (c Codec) DecodeGroup(id string, data []byte) (*protocol.ResultTuple, error) {
	v, err := c.Serializer.Decode(data)
	if err != nil {
		return nil, &DecodeError{TaskID: id, Err: err}
	}
	object, _ := v.(map[string]any)
	group, err := protocol.ResultTupleFromValue(object["result"])
	if err == nil && group.Children == nil {
		err = errors.New("what is stored is not a group")
	}
	if err != nil {
		return nil, &DecodeError{TaskID: id, Err: err}
	}
	return &group, nil
}

// Pending is the meta of a task of which nothing is stored.
func Pending(id string) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: id, Status: protocol.Pending}
}

// AppendChordPart appends a finished part of a chord as Celery's Redis backend keeps it, and tells how many of its bytes any
// outcome of the task has in common and no other task's has. Its errors are *EncodeError.
func (c Codec) AppendChordPart(dst []byte, m *protocol.ResultMeta) (part []byte, key int, err error) {
	part, key, err = protocol.AppendChordPart(dst, m, c.Serializer)
	if err != nil {
		return nil, 0, &EncodeError{TaskID: m.TaskID, Err: err}
	}
	return part, key, nil
}

// DecodeChordPart reads what AppendChordPart or Celery has written for a part of the group. Its errors are *DecodeError, of
// the group.
func (c Codec) DecodeChordPart(group string, data []byte) (*protocol.ResultMeta, error) {
	m, err := protocol.DecodeChordPart(data, c.Serializer)
	if err != nil {
		return nil, &DecodeError{TaskID: group, Err: fmt.Errorf("part of a chord: %w", err)}
	}
	return m, nil
}
