package protocol

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol/serialization"
)

// EnvelopeError says why bytes of a broker are no message. No Python worker survives such bytes: most of these defects
// end its process.
type EnvelopeError struct {
	Reason string // one line, for an operator
	Offset int    // in bytes, where the defect is or begins
}

func (e *EnvelopeError) Error() string {
	return "envelope: " + e.Reason + " (at byte " + strconv.Itoa(e.Offset) + ")"
}

// decoding is a message on its way in. What its optional headers point to lies beside it, so that a message is one
// allocation.
type decoding struct {
	Message
	groupIndex   int
	ignoreResult bool
}

// DecodeEnvelope reads the JSON document in which kombu's virtual transports (Redis, SQS, file system) keep a message,
// and decodes its body from base64. A nil error means that the whole text is JSON to Python and has what kombu needs
// (typed values in headers apart, of which kombu dies if it does not know the type); whether it is a task is for
// DecodeRequest.
//
// The error is an *EnvelopeError, the first that was met: text that is not a JSON object, headers that are not an object
// (absent is fine), no properties, delivery_tag or delivery_info with both its keys, no body, or a body in an encoding
// other than base64 or plain text. Of repeated keys the last counts, as in Python. The message shares no memory with
// raw.
//
// Beside the error stands what could be read, for whoever waits for the task and must be told: a message whose Headers
// are whole, wherever the defect is, with what was readable of its properties, and with its body or a nil one. The
// message is nil when there is no headers object, or the text stops to be JSON, or UTF-8, before that object ends.
func DecodeEnvelope(raw []byte) (*Message, error) {
	s := newScanner(raw)
	d := &decoding{}
	m := &d.Message
	var body, bodyEncoding, headers string
	bodyAt := 0
	hasBody, hasProperties := false, false
	if c := s.peek(); c != '{' && c != 0 {
		start, _, _ := s.skip()
		s.end()
		s.fail("not a JSON object", start)
	}
	s.open('{')
	for n := 0; ; n++ {
		key, ok := s.member(n)
		if !ok {
			break
		}
		c := s.peek()
		at := s.pos
		switch key {
		case "body":
			if hasBody = c == '"'; !hasBody {
				s.wrong("body is not a string")
				break
			}
			bodyAt = at
			body, _, hasBody = s.sharedString()
		case "content-type":
			m.ContentType, _ = s.str()
		case "content-encoding":
			m.ContentEncoding, _ = s.str()
		case "headers":
			if headers = ""; c != '{' {
				s.wrong("headers is not an object")
				break
			}
			if s.headers(d); !s.broken {
				headers = s.text[at:s.pos]
			}
		case "properties":
			if hasProperties = c == '{'; !hasProperties {
				m.Properties = Properties{}
				s.wrong("properties is not an object")
				break
			}
			bodyEncoding, hasProperties = s.properties(&m.Properties)
		default:
			s.skip()
		}
	}
	s.end()
	switch {
	case !hasProperties:
		s.defect("no properties", 0)
	case !hasBody:
		s.defect("no body", 0)
	default:
		m.Body = s.body(body, bodyEncoding, bodyAt)
	}
	switch {
	case s.err == nil:
		return m, nil
	case headers == "" || !utf8.ValidString(headers):
		return nil, s.err
	}
	return m, s.err
}

// body decodes the text of the body that stands at offset. It is nil after a defect.
func (s *scanner) body(text, encoding string, offset int) []byte {
	switch encoding {
	case "", "utf-8":
		return []byte(text)
	case "base64":
		body, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			s.defect("body is not base64", offset)
			return nil
		}
		return body
	}
	s.defect("unknown body_encoding "+strconv.Quote(encoding), offset)
	return nil
}

// properties reads the properties object and returns body_encoding, which says how the envelope holds the body and is
// no property of the message. A known property of the wrong type counts as absent. Not ok: there is no telling how the
// body is held.
func (s *scanner) properties(p *Properties) (bodyEncoding string, ok bool) {
	start := s.pos
	*p = Properties{}
	hasTag, hasInfo, hasEncoding := false, false, true
	s.open('{')
	for n := 0; ; n++ {
		name, ok := s.member(n)
		if !ok {
			break
		}
		switch name {
		case "correlation_id":
			p.CorrelationID, _ = s.label()
		case "reply_to":
			p.ReplyTo, _ = s.label()
		case "delivery_mode":
			p.DeliveryMode, _ = s.int()
		case "priority":
			p.Priority = s.priority()
		case "expiration":
			p.Expiration, _ = s.label()
		case "delivery_tag":
			p.DeliveryTag, hasTag = s.label()
		case "delivery_info":
			hasInfo = true
			s.deliveryInfo(&p.DeliveryInfo)
		case "body_encoding":
			bodyEncoding, hasEncoding = s.bodyEncoding()
		default:
			from, to, _ := s.skip()
			p.Extra = append(p.Extra, Header{name, json.RawMessage(s.text[from:to])})
		}
	}
	switch {
	case !hasTag:
		s.defect("no properties.delivery_tag", start)
	case !hasInfo:
		s.defect("no properties.delivery_info", start)
	}
	if len(p.Extra) > 1 {
		p.Extra = lastOfEach(p.Extra, nil)
	}
	return bodyEncoding, hasEncoding && !s.broken
}

func (s *scanner) bodyEncoding() (encoding string, ok bool) {
	switch s.peek() {
	case '"':
		return s.string()
	case 'n':
		return "", s.null()
	}
	s.wrong("body_encoding is not a string")
	return "", false
}

// priority reads a number, or a string of one, as kombu does: what is neither counts as 0.
func (s *scanner) priority() int {
	if s.peek() == '"' {
		text, _ := s.string()
		n, _ := strconv.Atoi(strings.TrimSpace(text))
		return n
	}
	f, _ := s.float()
	return int(max(-1<<31, min(f, 1<<31-1)))
}

func (s *scanner) deliveryInfo(info *DeliveryInfo) {
	*info = DeliveryInfo{}
	if s.peek() != '{' {
		s.wrong("properties.delivery_info is not an object")
		return
	}
	start := s.pos
	hasExchange, hasKey := false, false
	s.open('{')
	for n := 0; ; n++ {
		name, ok := s.member(n)
		if !ok {
			break
		}
		switch name {
		case "exchange":
			info.Exchange, hasExchange = s.address()
		case "routing_key":
			info.RoutingKey, hasKey = s.address()
		case "redelivered":
			info.Redelivered, _ = s.bool()
		default:
			s.skip()
		}
	}
	switch {
	case !hasExchange:
		s.defect("no properties.delivery_info.exchange", start)
	case !hasKey:
		s.defect("no properties.delivery_info.routing_key", start)
	}
}

// address reads the name of an exchange or a routing key. Null is the empty one, as in kombu.
func (s *scanner) address() (string, bool) {
	if s.null() {
		return "", true
	}
	return s.str()
}

// AppendEnvelope appends the message as the JSON document kombu's virtual transports keep, spaced and ordered as
// Python writes it. Any Python consumer takes it: the body is in base64, an empty DeliveryTag becomes a new id, a zero
// DeliveryMode becomes 2, and every property kombu insists on is there.
//
// With a Task, all standard headers of protocol 2 are written, null where unset; without one, only those that are set,
// so that a protocol 1 or control message has {}. Extra headers follow with their exact bytes. An extra header with
// the name of a standard one counts only if that one is in Malformed; a value that is not JSON is written as null.
func AppendEnvelope(dst []byte, m *Message) []byte {
	dst = slices.Grow(dst, base64.StdEncoding.EncodedLen(len(m.Body))+1024)
	dst = append(dst, `{"body": "`...)
	dst = appendBase64(dst, m.Body)
	dst = append(dst, `", "content-encoding": `...)
	dst = serialization.AppendString(dst, m.ContentEncoding)
	dst = append(dst, `, "content-type": `...)
	dst = serialization.AppendString(dst, m.ContentType)
	dst = append(dst, `, "headers": `...)
	dst = appendHeaders(dst, &m.Headers)
	dst = append(dst, `, "properties": {`...)
	dst = appendProperties(dst, &m.Properties)
	return append(dst, "}}"...)
}

func appendProperties(dst []byte, p *Properties) []byte {
	if p.CorrelationID != "" {
		dst = append(dst, `"correlation_id": `...)
		dst = serialization.AppendString(dst, p.CorrelationID)
		dst = append(dst, ", "...)
	}
	if p.ReplyTo != "" {
		dst = append(dst, `"reply_to": `...)
		dst = serialization.AppendString(dst, p.ReplyTo)
		dst = append(dst, ", "...)
	}
	for _, e := range p.Extra {
		if !isStandardProperty(e.Name) {
			dst = appendMember(dst, e)
			dst = append(dst, ", "...)
		}
	}
	mode := p.DeliveryMode
	if mode == 0 {
		mode = 2
	}
	dst = append(dst, `"delivery_mode": `...)
	dst = strconv.AppendInt(dst, int64(mode), 10)
	if p.Expiration != "" {
		dst = append(dst, `, "expiration": `...)
		dst = serialization.AppendString(dst, p.Expiration)
	}
	dst = append(dst, `, "delivery_info": {"exchange": `...)
	dst = serialization.AppendString(dst, p.DeliveryInfo.Exchange)
	dst = append(dst, `, "routing_key": `...)
	dst = serialization.AppendString(dst, p.DeliveryInfo.RoutingKey)
	if p.DeliveryInfo.Redelivered {
		dst = append(dst, `, "redelivered": true`...)
	}
	dst = append(dst, `}, "priority": `...)
	dst = strconv.AppendInt(dst, int64(p.Priority), 10)
	dst = append(dst, `, "body_encoding": "base64", "delivery_tag": `...)
	if p.DeliveryTag == "" {
		dst = append(dst, '"')
		dst = appendID(dst)
		dst = append(dst, '"')
	} else {
		dst = serialization.AppendString(dst, p.DeliveryTag)
	}
	return dst
}

func isStandardProperty(name string) bool {
	switch name {
	case "correlation_id", "reply_to", "delivery_mode", "priority", "expiration", "delivery_tag", "delivery_info",
		"body_encoding":
		return true
	}
	return false
}

// appendMember appends a member of an object in the envelope, its value as it is: one byte that is not JSON would
// take down every Python worker that reads the message, so such a value becomes null.
func appendMember(dst []byte, e Header) []byte {
	dst = serialization.AppendString(dst, e.Name)
	dst = append(dst, ": "...)
	s := newScanner(e.Value)
	s.depth = 3 // envelope, headers, stamps
	if s.skip(); !s.end() {
		return append(dst, "null"...)
	}
	return append(dst, e.Value...)
}
