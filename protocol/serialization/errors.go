package serialization

import "errors"

// ContentDisallowed is kombu's refusal of a content type that is not on the accept list, with kombu's text.
type ContentDisallowed struct{ ContentType string }

func (e *ContentDisallowed) Error() string {
	name := e.ContentType
	if s, ok := Lookup(e.ContentType); ok {
		name = s.Name()
	}
	return "Refusing to deserialize untrusted content of type " + name + " (" + e.ContentType + ")"
}

// DecodeError says that bytes are not what their content type promises, or go beyond a limit.
type DecodeError struct {
	ContentType string
	Err         error
}

func (e *DecodeError) Error() string { return "decode " + e.ContentType + ": " + e.Err.Error() }
func (e *DecodeError) Unwrap() error { return e.Err }

// EncodeError says that a value has no form in a content type.
type EncodeError struct {
	ContentType string
	Err         error
}

func (e *EncodeError) Error() string { return "encode " + e.ContentType + ": " + e.Err.Error() }
func (e *EncodeError) Unwrap() error { return e.Err }

// Limits on what is decoded. They protect against hostile input, not against large tasks.
const (
	MaxBody   = 128 << 20 // bytes of one encoded value
	MaxValues = 2 << 20   // values of a JSON or msgpack document, a dict counting as four: it may take two bytes there and takes seventy here
	MaxDepth  = 1024      // nested containers in JSON, two for each step of a chain in its result; Python's reader gives up a little before

	dictCost = 3 // what a dict adds to the count of values beside itself

	maxBinaryDepth = 256      // in msgpack
	maxTreeDepth   = 512      // in YAML and pickle
	maxCostlyBody  = 16 << 20 // bytes of YAML and pickle, which take many times their size in memory
)

var (
	errTooLarge = errors.New("document is too large")
	errTooMany  = errors.New("document has too many values")
	errTooDeep  = errors.New("nested too deep")
	errTruncate = errors.New("unexpected end of input")
	errTrailing = errors.New("data after the end of the value")
)

// checkSize also keeps an error from quoting a body.
func checkSize(data []byte, limit int) error {
	if len(data) > limit {
		return errTooLarge
	}
	return nil
}

// encoded and decoded wrap the error of one codec.
func encoded(dst []byte, s Serializer, err error) ([]byte, error) {
	if err != nil {
		return nil, &EncodeError{ContentType: s.ContentType(), Err: err}
	}
	return dst, nil
}

func decoded(v any, s Serializer, err error) (any, error) {
	if err != nil {
		return nil, &DecodeError{ContentType: s.ContentType(), Err: err}
	}
	return v, nil
}
