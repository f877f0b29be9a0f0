package worker

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// appendCompletion appends a completion and the tasks that were sent during the run, for the other end of a pool's pipe.
// The result travels as a JSON document, in which every canonical value has a form; a result that JSON cannot write at all
// is an error.
func appendCompletion(dst []byte, id string, c *completion, children []protocol.ResultTuple) ([]byte, error) {
	status := protocol.Success // of the document: whether it is read as a value or as an exception
	if c.exception != nil {
		status = protocol.Failure
	}
	document, err := protocol.AppendResult(nil, &protocol.ResultMeta{TaskID: id, Status: status, Result: c.result,
		Exception: c.exception, Traceback: c.traceback, Children: children}, serialization.JSON)
	if err != nil {
		return nil, err
	}
	dst = appendField(dst, string(c.state))
	dst = appendFlags(dst, c.requeue, c.timedOut, c.expected, c.lost)
	dst = appendField(dst, c.why)
	dst = binary.AppendUvarint(dst, uint64(len(c.following)))
	for i := range c.following {
		dst = appendPublication(dst, &c.following[i])
	}
	var replacement []byte
	if c.replacement != nil {
		if replacement, err = serialization.AppendJSON(nil, c.replacement.Value()); err != nil {
			return nil, err
		}
	}
	dst = appendField(dst, replacement)
	return append(dst, document...), nil
}

// readCompletion is the reverse of appendCompletion.
func readCompletion(f *fields) (c completion, children []protocol.ResultTuple, err error) {
	c.state = protocol.State(f.text())
	f.flags(&c.requeue, &c.timedOut, &c.expected, &c.lost)
	c.why = f.text()
	for n := f.number(); n > 0 && f.err == nil; n-- {
		p, err := readPublication(f)
		if err != nil {
			return completion{}, nil, err
		}
		c.following = append(c.following, p)
	}
	if replacement := f.bytes(); len(replacement) > 0 && f.err == nil {
		if c.replacement, err = readSignature(replacement); err != nil {
			return completion{}, nil, fmt.Errorf("the child's replacement: %w", err)
		}
	}
	if f.err != nil {
		return completion{}, nil, f.err
	}
	m, err := protocol.DecodeResult(f.body, serialization.JSON)
	if err != nil {
		return completion{}, nil, fmt.Errorf("the child's result: %w", err)
	}
	c.result, c.exception, c.traceback = m.Result, m.Exception, m.Traceback
	return c, m.Children, nil
}

func readSignature(document []byte) (*protocol.Signature, error) {
	v, err := serialization.DecodeJSON(document)
	if err != nil {
		return nil, err
	}
	sig, err := protocol.SignatureFromValue(v)
	return &sig, err
}

// appendPublication appends a message with where it goes.
func appendPublication(dst []byte, p *transport.Publication) []byte {
	dst = appendField(dst, p.Exchange)
	dst = appendField(dst, p.RoutingKey)
	dst = binary.AppendVarint(dst, int64(p.Delay))
	dst = appendFlags(dst, p.Optional)
	return appendField(dst, protocol.AppendEnvelope(nil, p.Message))
}

func readPublication(f *fields) (p transport.Publication, err error) {
	p.Exchange = f.text()
	p.RoutingKey = f.text()
	p.Delay = time.Duration(f.signed())
	f.flags(&p.Optional)
	envelope := f.bytes()
	if f.err != nil {
		return p, f.err
	}
	if p.Message, err = protocol.DecodeEnvelope(envelope); err != nil {
		return p, fmt.Errorf("the child's message: %w", err)
	}
	return p, nil
}

// appendSent appends how many calls were sent, by task and queue.
func appendSent(dst []byte, sent map[seriesKey]uint64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(sent)))
	for key, n := range sent {
		dst = appendField(dst, key.name)
		dst = appendField(dst, key.queue)
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func readSent(f *fields) map[seriesKey]uint64 {
	var sent map[seriesKey]uint64
	for n := f.number(); n > 0 && f.err == nil; n-- {
		if sent == nil {
			sent = map[seriesKey]uint64{}
		}
		key := seriesKey{name: f.text(), queue: f.text(), sent: true}
		sent[key] = f.number()
	}
	return sent
}

// appendPassed appends the headers that a run passes on.
func appendPassed(dst []byte, headers []protocol.Header) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(headers)))
	for _, h := range headers {
		dst = appendField(dst, h.Name)
		dst = appendField(dst, []byte(h.Value))
	}
	return dst
}

func readPassed(f *fields) []protocol.Header {
	var headers []protocol.Header
	for n := f.number(); n > 0 && f.err == nil; n-- {
		headers = append(headers, protocol.Header{Name: f.text(), Value: f.bytes()})
	}
	return headers
}
