package protocol

import (
	"errors"
	"fmt"
	"maps"

	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
)

// Encoding says how a request becomes a message.
type Encoding struct {
	Serializer  string // kombu's name or MIME type; "" is json
	Compression string // kombu's name or MIME type; "" is none
	Protocol    int    // 1 or 2; 0 is 2
}

// emptyEmbed is what follows a task that nothing follows.
const emptyEmbed = `{"callbacks": null, "errbacks": null, "chain": null, "chord": null}`

// Message writes the request as a message of its own: with the request's headers and properties, a new delivery tag
// when it is published, and no mark of redelivery. CorrelationID is the task's id if empty; DeliveryMode 2 if 0.
// Expiration is the caller's to set, who knows the time.
//
// Args and Kwargs may hold any Go value the serializer takes. Nil ones are written as [] and {}: null there is a black
// hole for Python workers. Protocol 1 has no place for shadow, lineage, stamps and ignore_result; they are left out, as
// Celery leaves them out. It is an error when Task or ID is empty, when the serializer or compression is unknown or
// cannot write, and when a chain is to go out under protocol 1.
func (r *Request) Message(e Encoding) (*Message, error) {
	if r.Task == "" || r.ID == "" {
		return nil, fmt.Errorf("request %q of task %q: both id and task are needed", r.ID, r.Task)
	}
	name := e.Serializer
	if name == "" {
		name = "json"
	}
	s, ok := serialization.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("unknown serializer %q", name)
	}
	m := r.envelope(s.ContentType(), s.ContentEncoding())
	var err error
	switch e.Protocol {
	case 0, 2:
		m.Headers = r.Headers
		m.Headers.Redelivered = false
		m.Headers.Compression = ""
		m.Body, err = r.appendBody(nil, s)
	case 1:
		m.Headers.Extra = r.Headers.Extra
		m.Body, err = r.appendBodyV1(nil, s)
	default:
		err = fmt.Errorf("unknown task protocol %d", e.Protocol)
	}
	if err == nil && e.Compression != "" {
		m.Body, m.Headers.Compression, err = compression.Compress(e.Compression, m.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("task %s: %w", r.Task, err)
	}
	return m, nil
}

// envelope is a new message without headers and body.
func (r *Request) envelope(contentType, encoding string) *Message {
	m := &Message{Properties: r.Properties, ContentType: contentType, ContentEncoding: encoding}
	m.Properties.DeliveryTag = ""
	m.Properties.DeliveryInfo.Redelivered = false
	if m.Properties.CorrelationID == "" {
		m.Properties.CorrelationID = r.ID
	}
	if m.Properties.DeliveryMode == 0 {
		m.Properties.DeliveryMode = 2
	}
	return m
}

// Again is [Request.Message] with the body of the message that DecodeRequest read the request from, byte for byte and as
// it was serialized and compressed: for a request whose Args, Kwargs and Embed have not been changed since. False: there
// is no such body, or it is one of protocol 1, which says what headers say in protocol 2.
func (r *Request) Again() (*Message, bool) {
	if r.source == nil || r.Protocol != 2 {
		return nil, false
	}
	m := r.envelope(r.source.ContentType, r.source.ContentEncoding)
	m.Headers = r.Headers
	m.Headers.Redelivered = false
	m.Headers.Compression = r.source.Headers.Compression
	m.Body = r.source.Body
	return m, true
}

// Encoding is how the message was written that DecodeRequest read the request from, by MIME types; the zero Encoding for
// any other request.
func (r *Request) Encoding() Encoding {
	if r.source == nil {
		return Encoding{}
	}
	return Encoding{Serializer: r.source.ContentType, Compression: r.source.Headers.Compression, Protocol: r.Protocol}
}

// appendBody writes the triple [args, kwargs, embed].
func (r *Request) appendBody(dst []byte, s serialization.Serializer) ([]byte, error) {
	args, kwargs := r.call()
	if s.ContentType() != serialization.JSON.ContentType() {
		return s.Append(dst, []any{args, kwargs, r.Embed.value()})
	}
	// JSON composes, so the constant part of nearly every body need not be built as a tree.
	dst, err := s.Append(append(dst, '['), args)
	if err != nil {
		return nil, err
	}
	if dst, err = s.Append(append(dst, ", "...), kwargs); err != nil {
		return nil, err
	}
	dst = append(dst, ", "...)
	if r.Embed.empty() {
		dst = append(dst, emptyEmbed...)
	} else if dst, err = s.Append(dst, r.Embed.value()); err != nil {
		return nil, err
	}
	return append(dst, ']'), nil
}

// call returns args and kwargs, neither nil.
func (r *Request) call() ([]any, map[string]any) {
	args, kwargs := r.Args, r.Kwargs
	if args == nil {
		args = []any{}
	}
	if kwargs == nil {
		kwargs = map[string]any{}
	}
	return args, kwargs
}

func (e *Embed) empty() bool {
	return e.Callbacks == nil && e.Errbacks == nil && e.Chain == nil && e.Chord == nil && len(e.Extra) == 0
}

func (e *Embed) value() map[string]any {
	v := make(map[string]any, 4+len(e.Extra))
	maps.Copy(v, e.Extra)
	v["callbacks"] = signatureValues(e.Callbacks)
	v["errbacks"] = signatureValues(e.Errbacks)
	v["chain"] = signatureValues(e.Chain)
	v["chord"] = nil
	if e.Chord != nil {
		v["chord"] = e.Chord.Value()
	}
	return v
}

// signatureValues is nil for a nil list and a list for any other: Celery writes "chain": [] for the last step.
func signatureValues(sigs []Signature) any {
	if sigs == nil {
		return nil
	}
	list := make([]any, len(sigs))
	for i, s := range sigs {
		list[i] = s.Value()
	}
	return list
}

// appendBodyV1 writes a protocol 1 body. There the steps of a chain are callbacks of each other, which whoever built
// the chain must do.
func (r *Request) appendBodyV1(dst []byte, s serialization.Serializer) ([]byte, error) {
	if len(r.Embed.Chain) > 0 {
		return nil, errors.New("protocol 1 cannot carry a chain")
	}
	args, kwargs := r.call()
	embed := r.Embed.value()
	body := map[string]any{
		"task": r.Task, "id": r.ID, "args": args, "kwargs": kwargs,
		"group": textOrNil(r.Group), "taskset": textOrNil(r.Group), "group_index": nil,
		"retries": int64(r.Retries), "eta": textOrNil(r.ETA), "expires": textOrNil(r.Expires), "utc": true,
		"callbacks": embed["callbacks"], "errbacks": embed["errbacks"], "chord": embed["chord"],
		"timelimit": []any{secondsOrNil(r.TimeLimit.Hard), secondsOrNil(r.TimeLimit.Soft)},
	}
	if r.GroupIndex != nil {
		body["group_index"] = int64(*r.GroupIndex)
	}
	return s.Append(dst, body)
}

func textOrNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func secondsOrNil(f float64) any {
	switch {
	case f <= 0:
		return nil
	case f == float64(int64(f)):
		return int64(f)
	}
	return f
}
