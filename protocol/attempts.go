package protocol

import (
	"encoding/json"
	"slices"
	"strconv"
)

// Headers of Gelery's own that count; a message without one has a count of 0.
const (
	// AttemptsHeader counts how often work on a message has begun after it had been handed out before: what a delivery
	// cap is compared with.
	AttemptsHeader = "x-gelery-attempts"
	// HopsHeader counts how often a message was handed back by workers that do not know its task.
	HopsHeader = "x-gelery-hops"
	// RedeliveredHeader is 1 in a message that was sent anew, by a broker whose messages cannot be changed, after it had been
	// handed out before: the broker says so no more.
	RedeliveredHeader = "x-gelery-redelivered"
)

// OnceHeader marks a message that may have been sent twice, by a worker that was lost before it knew, and whose task must
// not start twice. Its value is the message's own: what comes again is the same message.
const OnceHeader = "x-gelery-once"

// Once is the value of OnceHeader, "" without one.
func (h *Headers) Once() string {
	var text string
	for _, e := range h.Extra {
		if e.Name == OnceHeader && json.Unmarshal(e.Value, &text) == nil {
			return text
		}
	}
	return ""
}

// SetOnce sets OnceHeader to an id. It does not change the Extra that other Headers share with these.
func (h *Headers) SetOnce(id string) {
	extra := slices.DeleteFunc(slices.Clone(h.Extra), func(e Header) bool { return e.Name == OnceHeader })
	h.Extra = append(extra, Header{OnceHeader, json.RawMessage(strconv.Quote(id))})
}

// MarkedRedelivered tells whether RedeliveredHeader says that the message was handed out before.
func (h *Headers) MarkedRedelivered() bool { return h.count(RedeliveredHeader) > 0 }

// Attempts is the count in AttemptsHeader, 0 without one or with one that is no count.
func (h *Headers) Attempts() int { return h.count(AttemptsHeader) }

// SetAttempts replaces the count; 0 removes the header. It does not change the Extra that other Headers share with these.
func (h *Headers) SetAttempts(n int) { h.setCount(AttemptsHeader, n) }

// Hops is the count in HopsHeader, 0 without one or with one that is no count.
func (h *Headers) Hops() int { return h.count(HopsHeader) }

// SetHops replaces the count, as SetAttempts does.
func (h *Headers) SetHops(n int) { h.setCount(HopsHeader, n) }

func (h *Headers) count(name string) int {
	for _, e := range h.Extra {
		if e.Name == name {
			n, err := strconv.Atoi(string(e.Value))
			if err != nil || n < 0 {
				return 0
			}
			return n
		}
	}
	return 0
}

func (h *Headers) setCount(name string, n int) {
	extra := slices.DeleteFunc(slices.Clone(h.Extra), func(e Header) bool { return e.Name == name })
	if n > 0 {
		extra = append(extra, Header{name, json.RawMessage(strconv.Itoa(n))})
	}
	h.Extra = extra
}

// MarkAttempts returns the envelope with the count in AttemptsHeader. Every other byte stays as it is. Missing headers are
// added. The error is an *EnvelopeError, for what is not an envelope.
func MarkAttempts(raw []byte, n int) ([]byte, error) {
	p, err := findPlaces(raw, AttemptsHeader)
	if err != nil {
		return nil, err
	}
	out := marking{raw: raw, out: make([]byte, 0, len(raw)+len(AttemptsHeader)+20)}
	out.header(p, AttemptsHeader, strconv.Itoa(n))
	return out.end(), nil
}
