package protocol

import (
	"fmt"
	"slices"

	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
)

// longestShortString is what an AMQP property may have, in bytes.
const longestShortString = 255

// NewReply makes the message by which a worker tells a client of a result: the reply of Celery's rpc:// backend, as
// Celery 5.2 to 5.6 send it. Its body has five members, task_id, status, result, traceback and children; date_done,
// group_id, parent_id and what result_extended adds are not sent. It is transient unless persistent is set. It is
// recognized by m.CorrelationID, or else by the task's id; one too long for AMQP is left out, and readers then take the
// task_id of the body. The errors are AppendResult's.
func NewReply(m *ResultMeta, s serialization.Serializer, persistent bool) (*Message, error) {
	body, err := appendReply(nil, m, s)
	if err != nil {
		return nil, err
	}
	reply := &Message{ContentType: s.ContentType(), ContentEncoding: s.ContentEncoding(), Body: body}
	reply.Properties.CorrelationID = m.CorrelationID
	if reply.Properties.CorrelationID == "" {
		reply.Properties.CorrelationID = m.TaskID
	}
	if len(reply.Properties.CorrelationID) > longestShortString {
		reply.Properties.CorrelationID = ""
	}
	reply.Properties.DeliveryMode = 1
	if persistent {
		reply.Properties.DeliveryMode = 2
	}
	return reply, nil
}

func appendReply(dst []byte, m *ResultMeta, s serialization.Serializer) ([]byte, error) {
	err := m.Check()
	if err != nil {
		return nil, err
	}
	if s.ContentType() == serialization.JSON.ContentType() {
		dst = append(slices.Grow(dst, 256), `{"task_id": `...)
		dst = append(serialization.AppendString(dst, m.TaskID), ", "...)
		if dst, err = appendOutcomeJSON(dst, m, s); err == nil {
			dst = append(dst, '}')
		}
	} else {
		dst, err = appendFields(dst, m.outcomeFields([]resultField{{"task_id", m.TaskID}}, s), s)
	}
	if err != nil {
		return nil, fmt.Errorf("result of task %s: %w", m.TaskID, err)
	}
	return dst, nil
}

// DecodeReply reads a reply of any Celery version, also the whole meta document that versions to come send. It is
// DecodeResult, with the serializer the message names; accept says which ones may be used.
func DecodeReply(m *Message, accept serialization.Accept) (*ResultMeta, error) {
	data := m.Body
	if c := m.Headers.Compression; c != "" {
		var err error
		if data, err = compression.Decompress(c, data, compression.DefaultLimit); err != nil {
			return nil, err
		}
	}
	v, err := accept.Decode(m.ContentType, m.ContentEncoding, data)
	if err != nil {
		return nil, err
	}
	return ResultFromValue(v)
}
