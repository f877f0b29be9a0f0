package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
)

// The exchanges of remote control: requests are broadcast on the first, a fanout exchange; replies go over the second, a
// direct one. Both are transient. control_exchange is "celery".
const (
	PidboxExchange      = "celery.pidbox"
	PidboxReplyExchange = "reply.celery.pidbox"
)

// IsPidboxReplyExchange tells the exchanges of replies: those of other sites have another word in the middle.
func IsPidboxReplyExchange(name string) bool {
	return strings.HasPrefix(name, "reply.") && strings.HasSuffix(name, ".pidbox")
}

// maxPidbox bounds the body of a request and what it decompresses to, in bytes. Celery's own are below a kilobyte, a long
// list of ids is the exception. A worker's hello has all ids that are revoked, 50,000 of them, and may have maxHello.
const maxPidbox, maxHello = 4 << 20, 32 << 20

// maxPidboxReply bounds the body of a reply the same way: a busy worker lists all its tasks with their arguments.
const maxPidboxReply = 32 << 20

// PidboxRequest is a message of kombu's pidbox: a command for workers.
type PidboxRequest struct {
	Method      string
	Arguments   map[string]any // canonical values; never nil after DecodePidbox
	Destination []string       // node names; none: everybody, or who matches
	Pattern     string         // with Matcher: who matches; "": no pattern
	Matcher     string         // "glob" or "pcre"
	Ticket      string         // of the replies; "": none is wanted
	ReplyTo     PidboxReplyTo
	Clock       int       // the sender's logical clock
	Expires     time.Time // when nobody waits for a reply any more; zero: never
}

// PidboxReplyTo is where replies go.
type PidboxReplyTo struct{ Exchange, RoutingKey string }

// WantsReply tells whether somebody waits for an answer.
func (r *PidboxRequest) WantsReply() bool { return r.ReplyTo.RoutingKey != "" }

// Message writes the request as kombu does.
func (r *PidboxRequest) Message(s serialization.Serializer) (*Message, error) {
	var destination any
	if len(r.Destination) > 0 {
		destination = r.Destination
	}
	orNone := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	arguments := r.Arguments
	if arguments == nil {
		arguments = map[string]any{}
	}
	body := map[string]any{"method": r.Method, "arguments": arguments, "destination": destination,
		"pattern": orNone(r.Pattern), "matcher": orNone(r.Matcher)}
	if r.WantsReply() {
		body["ticket"] = r.Ticket
		body["reply_to"] = map[string]any{"exchange": r.ReplyTo.Exchange, "routing_key": r.ReplyTo.RoutingKey}
	}
	expires := 0.0
	if !r.Expires.IsZero() {
		expires = float64(r.Expires.UnixMicro()) / 1e6
	}
	m, err := pidboxMessage(body, s)
	if err != nil {
		return nil, err
	}
	m.Properties.DeliveryMode = 2
	m.Headers = Headers{
		Extra: []Header{{"clock", json.RawMessage(strconv.Itoa(r.Clock))},
			{"expires", json.RawMessage(strconv.FormatFloat(expires, 'f', -1, 64))}},
		Malformed: []string{"expires"}, // a number here, where a task's is text
	}
	return m, nil
}

// NewPidboxReply writes a worker's reply to a request.
func NewPidboxReply(node string, reply any, ticket string, clock int, s serialization.Serializer) (*Message, error) {
	m, err := pidboxMessage(map[string]any{node: reply}, s)
	if err != nil {
		return nil, err
	}
	m.Properties.DeliveryMode = 1
	m.Headers.Extra = []Header{{"ticket", serialization.AppendString(nil, ticket)}, {"clock", json.RawMessage(strconv.Itoa(clock))}}
	return m, nil
}

func pidboxMessage(body map[string]any, s serialization.Serializer) (*Message, error) {
	b, err := s.Append(nil, body)
	if err != nil {
		return nil, fmt.Errorf("pidbox message: %w", err)
	}
	return &Message{ContentType: s.ContentType(), ContentEncoding: s.ContentEncoding(), Body: b}, nil
}

// DecodePidbox reads a request. Every defect of it is an error; unknown members are ignored.
func DecodePidbox(m *Message, accept serialization.Accept) (*PidboxRequest, error) {
	v, err := decodePidbox(m, accept, maxPidbox)
	large := errors.Is(err, errLargePidbox) && m.Headers.Compression == ""
	if large {
		v, err = decodePidbox(m, accept, maxHello)
	}
	if err != nil {
		return nil, fmt.Errorf("pidbox request: %w", err)
	}
	fields, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("pidbox request: the body is no mapping")
	}
	if large && fields["method"] != "hello" {
		return nil, fmt.Errorf("pidbox request: %d bytes: %w", len(m.Body), errLargePidbox)
	}
	r := &PidboxRequest{Clock: pidboxClock(m.Headers.Extra), Expires: pidboxExpires(m.Headers.Extra)}
	if err := r.read(fields); err != nil {
		return nil, fmt.Errorf("pidbox request: %w", err)
	}
	return r, nil
}

// errLargePidbox is that a body is longer than what it may be.
var errLargePidbox = errors.New("the body is too long")

// decodePidbox reads a body of at most so many bytes, compressed or not.
func decodePidbox(m *Message, accept serialization.Accept, most int) (any, error) {
	body := m.Body
	if len(body) > most {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", len(body), most, errLargePidbox)
	}
	if c := m.Headers.Compression; c != "" {
		var err error
		if body, err = compression.Decompress(c, body, most); err != nil {
			return nil, err
		}
	}
	return accept.Decode(m.ContentType, m.ContentEncoding, body)
}

func (r *PidboxRequest) read(fields map[string]any) error {
	for _, f := range []struct {
		name string
		to   *string
	}{{"method", &r.Method}, {"pattern", &r.Pattern}, {"matcher", &r.Matcher}, {"ticket", &r.Ticket}} {
		if err := textField(fields, f.name, f.to); err != nil {
			return err
		}
	}
	if r.Method == "" {
		return errors.New("it names no method")
	}
	var ok bool
	if r.Arguments, ok = fields["arguments"].(map[string]any); !ok {
		if fields["arguments"] != nil {
			return errors.New("arguments is no mapping")
		}
		r.Arguments = map[string]any{}
	}
	switch d := fields["destination"].(type) {
	case nil:
	case string:
		r.Destination = []string{d}
	case []any:
		for _, x := range d {
			name, ok := x.(string)
			if !ok {
				return errors.New("destination holds what is no text")
			}
			r.Destination = append(r.Destination, name)
		}
	default:
		return errors.New("destination is no list")
	}
	if fields["reply_to"] == nil {
		return nil
	}
	to, ok := fields["reply_to"].(map[string]any)
	if !ok {
		return errors.New("reply_to is no mapping")
	}
	if err := textField(to, "exchange", &r.ReplyTo.Exchange); err != nil {
		return err
	}
	return textField(to, "routing_key", &r.ReplyTo.RoutingKey)
}

// textField reads a member that is text, or null or absent for none.
func textField(fields map[string]any, name string, to *string) error {
	switch v := fields[name].(type) {
	case nil:
	case string:
		*to = v
	default:
		return fmt.Errorf("%s is no text", name)
	}
	return nil
}

func pidboxClock(extra []Header) int {
	if i := slices.IndexFunc(extra, func(h Header) bool { return h.Name == "clock" }); i >= 0 {
		if n, err := strconv.Atoi(string(extra[i].Value)); err == nil && n > 0 && n < math.MaxInt32 {
			return n
		}
	}
	return 0
}

func pidboxExpires(extra []Header) time.Time {
	if i := slices.IndexFunc(extra, func(h Header) bool { return h.Name == "expires" }); i >= 0 {
		if s, err := strconv.ParseFloat(string(extra[i].Value), 64); err == nil && s > 0 && s < 1e11 {
			return time.UnixMicro(int64(s * 1e6))
		}
	}
	return time.Time{}
}

// StampMember is a stamp as one text, "header=value" with the value as JSON: what revocations by header are kept as.
func StampMember(header string, value any) (string, error) {
	b, err := serialization.JSON.Append([]byte(header+"="), value)
	if err != nil {
		return "", fmt.Errorf("stamp %s: %w", header, err)
	}
	return string(b), nil
}

// PidboxReply is a worker's reply.
type PidboxReply struct {
	Node   string
	Value  any    // canonical
	Ticket string // "" if it names none
	Clock  int
}

// DecodePidboxReply reads a reply. Every defect of it is an error.
func DecodePidboxReply(m *Message, accept serialization.Accept) (*PidboxReply, error) {
	v, err := decodePidbox(m, accept, maxPidboxReply)
	if err != nil {
		return nil, fmt.Errorf("pidbox reply: %w", err)
	}
	body, ok := v.(map[string]any)
	if !ok || len(body) != 1 {
		return nil, errors.New("pidbox reply: the body is no mapping of one node")
	}
	r := &PidboxReply{Clock: pidboxClock(m.Headers.Extra)}
	for r.Node, r.Value = range body {
	}
	for _, h := range m.Headers.Extra {
		if h.Name != "ticket" {
			continue
		}
		if v, err := serialization.DecodeJSON(h.Value); err == nil {
			r.Ticket, _ = v.(string)
		}
	}
	return r, nil
}
