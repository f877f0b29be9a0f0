package protocol

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
)

// Request is one task call as its message says it, whichever protocol version carried it: the headers, and the
// decoded body. Celery's name for it inside a worker is the task request.
type Request struct {
	Headers
	Properties Properties

	Args   []any          // canonical values
	Kwargs map[string]any // never nil after DecodeRequest
	Embed  Embed

	// Protocol is the version the message was written in: 1 or 2.
	Protocol int

	embedRead    bool      // Embed is all that the message says
	eta, expires time.Time // parsed by DecodeRequest
	source       *Message  // what DecodeRequest has read
}

// Embed is the third element of a protocol 2 body: what follows the task.
type Embed struct {
	Callbacks []Signature // link
	Errbacks  []Signature // link_error
	Chain     []Signature // the rest of the chain, last step first
	Chord     *Signature  // the chord's body, for members of a chord header
	Extra     map[string]any
}

// ETATime is the parsed eta header; false when there is none.
func (r *Request) ETATime() (time.Time, bool) { return headerTime(r.eta, r.ETA) }

// ExpiresTime is the parsed expires header; false when there is none.
func (r *Request) ExpiresTime() (time.Time, bool) { return headerTime(r.expires, r.Expires) }

// DerivedID is an id that follows from the message and from names: the same one whenever the message comes again, and another
// for each retry and each replacement of the task.
func (r *Request) DerivedID(names ...string) string {
	of := []string{r.ID, r.ParentID, r.Properties.DeliveryTag, strconv.Itoa(r.Retries), strconv.Itoa(r.ReplacedTaskNesting)}
	return DerivedID(append(of, names...)...)
}

// headerTime returns the parsed form of text, from text itself when the request was not made by DecodeRequest.
func headerTime(parsed time.Time, text string) (time.Time, bool) {
	if text == "" {
		return time.Time{}, false
	}
	if parsed.IsZero() {
		t, err := ParseTime(text)
		return t, err == nil
	}
	return parsed, true
}

// RequestErrorKind says what is wrong with a message that is no task request.
type RequestErrorKind int

const (
	// Undecodable: the body cannot be decompressed or deserialized, or a protocol 1 body has a content type that is
	// refused. Celery acknowledges such a message and stores nothing.
	Undecodable RequestErrorKind = iota + 1
	// Disallowed: the content type is not accepted. Celery rejects the message and stores nothing.
	Disallowed
	// NotATask: neither headers nor body name a task. Celery rejects it as an unknown message.
	NotATask
	// Malformed: it names a task, and something of the call is missing or of the wrong kind. Celery rejects some of
	// these and dies of others.
	Malformed
)

func (k RequestErrorKind) String() string {
	switch k {
	case Undecodable:
		return "undecodable"
	case Disallowed:
		return "disallowed"
	case NotATask:
		return "not a task"
	case Malformed:
		return "malformed"
	}
	return "unknown"
}

// RequestError is a message that is no task request.
type RequestError struct {
	Kind RequestErrorKind
	Err  error
}

func (e *RequestError) Error() string { return e.Kind.String() + " message: " + e.Err.Error() }
func (e *RequestError) Unwrap() error { return e.Err }

func malformed(format string, args ...any) *RequestError {
	return &RequestError{Kind: Malformed, Err: fmt.Errorf(format, args...)}
}

// fatalHeaders are the headers without whose meaning a task must not run. The others are for display, or have a
// harmless default.
var fatalHeaders = []string{"task", "id", "eta", "expires", "retries", "timelimit", "group", "group_index", "root_id",
	"parent_id", "compression"}

// DecodeRequest reads the task call in a message: protocol 2 when it has a task header, else protocol 1, whose body
// says everything. A protocol 1 body under protocol 2 headers is read too; the headers win.
//
// The error is a *RequestError. The request beside it then holds what is known, ID and Task above all, so that a
// failure can be stored for whoever waits.
func DecodeRequest(m *Message, accept serialization.Accept) (*Request, error) {
	r := &Request{Headers: m.Headers, Properties: m.Properties, Protocol: 2, source: m}
	if err := r.decode(m, accept); err != nil {
		return r, err
	}
	return r, nil
}

// decode returns error and not *RequestError only to keep a typed nil out of its callers.
func (r *Request) decode(m *Message, accept serialization.Accept) error {
	if m.Headers.Task == "" && !slices.Contains(m.Headers.Malformed, "task") {
		r.Protocol = 1
	}
	for _, name := range fatalHeaders {
		if len(m.Headers.Malformed) > 0 && slices.Contains(m.Headers.Malformed, name) && r.Protocol == 2 {
			return malformed("header %s has a value of the wrong kind", name)
		}
	}
	body, err := decodeRequestBody(m, accept, r.Protocol)
	if err != nil {
		return err
	}
	object, isObject := body.(map[string]any)
	switch {
	case r.Protocol == 1 && !isObject:
		return &RequestError{Kind: NotATask, Err: errors.New("no task header, and a body that is not an object")}
	case isObject && r.Protocol == 2 && object["args"] == nil && object["kwargs"] == nil:
		return malformed("body is an object and not the triple [args, kwargs, embed]")
	case isObject:
		err = r.readObject(object)
	default:
		err = r.readTriple(body)
	}
	if err != nil {
		return err
	}
	return r.check()
}

// check is what holds for both protocols once everything is read.
func (r *Request) check() error {
	if r.ID == "" {
		return malformed("no task id")
	}
	var err error
	if r.eta.IsZero() && r.ETA != "" {
		if r.eta, err = ParseTime(r.ETA); err != nil {
			return malformed("eta: %w", err)
		}
	}
	if r.expires.IsZero() && r.Expires != "" {
		if r.expires, err = ParseTime(r.Expires); err != nil {
			return malformed("expires: %w", err)
		}
	}
	return nil
}

func decodeRequestBody(m *Message, accept serialization.Accept, protocol int) (any, error) {
	if m.ContentType == "" {
		kind := Malformed
		if protocol == 1 {
			kind = NotATask
		}
		return nil, &RequestError{Kind: kind, Err: errors.New("no content type")}
	}
	data := m.Body
	if c := m.Headers.Compression; c != "" {
		var err error
		if data, err = compression.Decompress(c, data, compression.DefaultLimit); err != nil {
			return nil, &RequestError{Kind: Undecodable, Err: err}
		}
	}
	body, err := accept.Decode(m.ContentType, m.ContentEncoding, data)
	if err != nil {
		kind := Undecodable
		if _, refused := errors.AsType[*serialization.ContentDisallowed](err); refused && protocol == 2 {
			kind = Disallowed
		}
		return nil, &RequestError{Kind: kind, Err: err}
	}
	return body, nil
}

// readTriple reads a protocol 2 body.
func (r *Request) readTriple(body any) error {
	triple, ok := body.([]any)
	if !ok || len(triple) != 3 {
		return malformed("body is not the triple [args, kwargs, embed]")
	}
	err := r.readCall(triple[0], triple[1])
	switch embed := triple[2].(type) {
	case nil:
		r.embedRead = true
	case map[string]any: // also if the task cannot be called: the rest of its workflow is in it
		err = cmp.Or(err, r.readEmbed(embed))
	default:
		err = cmp.Or(err, error(malformed("embed, the third element of the body, is not an object")))
	}
	return err
}

func (r *Request) readCall(args, kwargs any) error {
	var ok bool
	if r.Args, ok = args.([]any); !ok {
		return malformed("args is not a list")
	}
	if r.Kwargs, ok = kwargs.(map[string]any); !ok {
		return malformed("kwargs is not an object")
	}
	return nil
}

// readEmbed reads all that can be read.
func (r *Request) readEmbed(embed map[string]any) (first error) {
	e := &r.Embed
	for key, v := range embed {
		var err error
		switch key {
		case "callbacks":
			e.Callbacks, err = signatureList(key, v)
		case "errbacks":
			e.Errbacks, err = signatureList(key, v)
		case "chain":
			e.Chain, err = signatureList(key, v)
		case "chord":
			e.Chord, err = optionalSignature(key, v)
		default:
			if e.Extra == nil {
				e.Extra = make(map[string]any)
			}
			e.Extra[key] = v
		}
		first = cmp.Or(first, err)
	}
	r.embedRead = first == nil
	return first
}

// HidesChord tells whether a request that could not be decoded may be a part of a chord whose body is not known: it names a group.
func (r *Request) HidesChord() bool {
	return !r.embedRead && r.ID != "" && r.Group != "" && r.Embed.Chord == nil
}

func signatureList(name string, v any) ([]Signature, error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, malformed("%s is not a list of signatures", name)
	}
	out := make([]Signature, 0, len(list))
	var first error
	for i, item := range list {
		sig, err := SignatureFromValue(item)
		if err == nil {
			out = append(out, sig)
		} else if first == nil {
			first = malformed("%s[%d]: %w", name, i, err)
		}
	}
	return out, first
}

func optionalSignature(name string, v any) (*Signature, error) {
	if v == nil {
		return nil, nil
	}
	sig, err := SignatureFromValue(v)
	if err != nil {
		return nil, malformed("%s: %w", name, err)
	}
	return &sig, nil
}
