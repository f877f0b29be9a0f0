package protocol

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

const (
	// EventExchange is the exchange of events: topic and durable in AMQP, fanout on Redis. The default of event_exchange.
	EventExchange = "celeryev"
	// TaskMultiKey is the routing key of messages that hold a list of task events.
	TaskMultiKey = "task.multi"

	// maxEvents bounds the body of a message of events and what it decompresses to, in bytes.
	maxEvents = 16 << 20
)

// The types of the events that Celery's workers and clients send.
const (
	TaskSent      = "task-sent" // by a client
	TaskReceived  = "task-received"
	TaskStarted   = "task-started"
	TaskSucceeded = "task-succeeded"
	TaskFailed    = "task-failed"
	TaskRetried   = "task-retried"
	TaskRevoked   = "task-revoked"
	TaskRejected  = "task-rejected"
	TaskCancelled = "task-cancelled" // by workers that lost their broker

	WorkerOnline    = "worker-online"
	WorkerHeartbeat = "worker-heartbeat"
	WorkerOffline   = "worker-offline"
	WorkerElect     = "worker-elect"
	WorkerElectAck  = "worker-elect-ack"
)

// Event is one of Celery's monitoring events.
type Event struct {
	Type      string // TaskReceived, WorkerHeartbeat
	Hostname  string // node name of the worker, or "gen<pid>@<host>" of a client
	UTCOffset int    // whole hours WEST of UTC, rounded down: -2 for UTC+2
	PID       int
	Clock     int64     // the sender's logical clock; 0: it tells none
	Timestamp time.Time // in microseconds
	// Fields are those of its type, in the order they are written. Of decoded events they are sorted by name.
	Fields []EventField
}

// EventField is a field of an event. A decoded one has a canonical value, see package value.
type EventField struct {
	Name  string
	Value any
}

// appendMicros appends microseconds as a float of seconds, to the byte as Python's repr does: until the year 2096 the
// decimals of a number are the shortest text of its float, which takes long to find.
func appendMicros(dst []byte, micros int64) []byte {
	if micros < 1e14 || micros > 4e15 {
		return value.AppendFloat(dst, float64(micros)/1e6)
	}
	dst = strconv.AppendInt(dst, micros/1e6, 10)
	dst = append(dst, '.')
	var digits [6]byte
	rest, end := uint32(micros%1e6), 1
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = '0' + byte(rest%10)
		rest /= 10
		if digits[i] != '0' && end == 1 {
			end = i + 1
		}
	}
	return append(dst, digits[:end]...)
}

// EventMembers are fields of an event as JSON, each with a comma before it.
type EventMembers []byte

func (m EventMembers) name(name string) EventMembers {
	m = append(m, `, "`...)
	m = append(m, name...)
	return append(m, `": `...)
}

// Text adds a text.
func (m EventMembers) Text(name, v string) EventMembers {
	return serialization.AppendString(m.name(name), v)
}

// OptionalText adds a text, null if it is empty.
func (m EventMembers) OptionalText(name, v string) EventMembers {
	if v == "" {
		return append(m.name(name), "null"...)
	}
	return m.Text(name, v)
}

// Int adds a whole number.
func (m EventMembers) Int(name string, v int64) EventMembers {
	return strconv.AppendInt(m.name(name), v, 10)
}

// Float adds a number, which must not be infinite or NaN.
func (m EventMembers) Float(name string, v float64) EventMembers {
	return value.AppendFloat(m.name(name), v)
}

// Floats adds a list of such numbers.
func (m EventMembers) Floats(name string, list ...float64) EventMembers {
	m = append(m.name(name), '[')
	for i, v := range list {
		if i > 0 {
			m = append(m, ", "...)
		}
		m = value.AppendFloat(m, v)
	}
	return append(m, ']')
}

// Bool adds a truth value.
func (m EventMembers) Bool(name string, v bool) EventMembers {
	return strconv.AppendBool(m.name(name), v)
}

// JSON adds what is JSON already.
func (m EventMembers) JSON(name string, text []byte) EventMembers {
	return append(m.name(name), text...)
}

// Group is what stands before the first dash of the type: "task" or "worker", or a word of the user's.
func (e *Event) Group() string {
	group, _, _ := strings.Cut(e.Type, "-")
	return group
}

// RoutingKey is what an event is published with, where it is not in a list: "task.sent".
func (e *Event) RoutingKey() string { return strings.ReplaceAll(e.Type, "-", ".") }

// Field is the value of a field of its type; nil if there is none.
func (e *Event) Field(name string) any {
	for i := range e.Fields {
		if e.Fields[i].Name == name {
			return e.Fields[i].Value
		}
	}
	return nil
}

// Text is a field that is text, "" for any other.
func (e *Event) Text(name string) string {
	s, _ := e.Field(name).(string)
	return s
}

// UTCOffset is the offset of a time's zone as events tell it.
func UTCOffset(t time.Time) int {
	_, east := t.Zone()
	return int(math.Floor(float64(-east) / 3600))
}

// isEventHeader tells the members that every event has.
func isEventHeader(name string) bool {
	switch name {
	case "hostname", "utcoffset", "pid", "clock", "timestamp", "type":
		return true
	}
	return false
}

// AppendEvent appends an event as one JSON object, its members in Celery's order. A field under the name of a member that
// every event has is left out. The error is of a value that JSON has no form for.
func AppendEvent(dst []byte, e *Event) ([]byte, error) {
	dst = e.Begin(dst)
	for _, f := range e.Fields {
		if isEventHeader(f.Name) {
			continue
		}
		dst = append(dst, ", "...)
		dst = serialization.AppendString(dst, f.Name)
		dst = append(dst, ": "...)
		var err error
		if dst, err = serialization.AppendJSON(dst, f.Value); err != nil {
			return dst, fmt.Errorf("event %s: %s: %w", e.Type, f.Name, err)
		}
	}
	return e.End(dst), nil
}

// Begin appends what stands before the fields of an event. Who sends many writes them there, and then calls End.
func (e *Event) Begin(dst []byte) EventMembers {
	return e.BeginAfter(dst, e.Head())
}

// BeginAfter is Begin with what all events of a sender begin with, as Head returns it.
func (e *Event) BeginAfter(dst, head []byte) EventMembers {
	return strconv.AppendInt(append(dst, head...), e.Clock, 10)
}

// Head is the beginning of an event: its host name, UTC offset and process.
func (e *Event) Head() []byte {
	dst := append(make([]byte, 0, 96), `{"hostname": `...)
	dst = serialization.AppendString(dst, e.Hostname)
	dst = append(dst, `, "utcoffset": `...)
	dst = strconv.AppendInt(dst, int64(e.UTCOffset), 10)
	dst = append(dst, `, "pid": `...)
	dst = strconv.AppendInt(dst, int64(e.PID), 10)
	return append(dst, `, "clock": `...)
}

// End appends what stands behind the fields.
func (e *Event) End(dst EventMembers) []byte {
	dst = dst.name("timestamp")
	dst = appendMicros(dst, e.Timestamp.UnixMicro())
	dst = dst.name("type")
	dst = serialization.AppendString(dst, e.Type)
	return append(dst, '}')
}

// NewEventMessage is the message of a body of JSON: one event, or a list of them. The hostname is that of the sender, which
// Celery's workers look for in the headers.
func NewEventMessage(hostname string, body []byte) *Message {
	m := &Message{ContentType: serialization.JSON.ContentType(), ContentEncoding: serialization.JSON.ContentEncoding(), Body: body}
	m.Properties.DeliveryMode = 1
	m.Headers.Extra = []Header{{"hostname", serialization.AppendString(nil, hostname)}}
	return m
}

// DecodeEvents reads a message of events: an object, or a list of them, which may be empty. Those that are none are left
// out and told of by the error, beside the others.
func DecodeEvents(m *Message, accept serialization.Accept) ([]Event, error) {
	body := m.Body
	if len(body) > maxEvents {
		return nil, fmt.Errorf("events: %d bytes are more than %d", len(body), maxEvents)
	}
	if c := m.Headers.Compression; c != "" {
		var err error
		if body, err = compression.Decompress(c, body, maxEvents); err != nil {
			return nil, fmt.Errorf("events: %w", err)
		}
	}
	v, err := accept.Decode(m.ContentType, m.ContentEncoding, body)
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	sender := eventSender(m.Headers.Extra)
	events := make([]Event, 0, len(list))
	bad := 0
	for _, x := range list {
		e, failed := eventFromValue(x)
		if failed != nil {
			bad, err = bad+1, failed
			continue
		}
		if e.Hostname == "" {
			e.Hostname = sender
		}
		events = append(events, e)
	}
	if bad > 0 {
		return events, fmt.Errorf("%d of %d events cannot be read, the last because %w", bad, len(list), err)
	}
	return events, nil
}

// eventSender is the hostname in the headers of a message; "" if there is none.
func eventSender(extra []Header) string {
	for _, h := range extra {
		if h.Name == "hostname" {
			if v, err := serialization.DecodeJSON(h.Value); err == nil {
				s, _ := v.(string)
				return s
			}
		}
	}
	return ""
}

// eventFromValue reads an event. Only its type must be there; what else is missing, or of a wrong kind, is zero.
func eventFromValue(v any) (Event, error) {
	members, ok := v.(map[string]any)
	if !ok {
		return Event{}, errors.New("it is no object")
	}
	var e Event
	if e.Type, _ = members["type"].(string); e.Type == "" {
		return Event{}, errors.New("it has no type")
	}
	e.Hostname, _ = members["hostname"].(string)
	e.UTCOffset = int(wholeNumber(members["utcoffset"], 24))
	e.PID = int(wholeNumber(members["pid"], math.MaxInt32))
	e.Clock = wholeNumber(members["clock"], math.MaxInt64)
	if at, ok := number(members["timestamp"]); ok && math.Abs(at) < 1e11 {
		e.Timestamp = time.UnixMicro(int64(math.Round(at * 1e6)))
	}
	e.Fields = make([]EventField, 0, max(0, len(members)-6))
	for name, v := range members {
		if !isEventHeader(name) {
			e.Fields = append(e.Fields, EventField{name, v})
		}
	}
	slices.SortFunc(e.Fields, func(a, b EventField) int { return strings.Compare(a.Name, b.Name) })
	return e, nil
}

// wholeNumber is a number within limits, 0 for anything else.
func wholeNumber(v any, limit float64) int64 {
	f, ok := number(v)
	if !ok || !(math.Abs(f) <= limit) || math.Abs(f) >= math.MaxInt64 {
		return 0
	}
	if n, isInt := v.(int64); isInt {
		return n
	}
	return int64(f)
}
