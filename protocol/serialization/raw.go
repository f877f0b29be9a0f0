package serialization

import (
	"fmt"
	"slices"
)

type rawSerializer struct{}

// Raw carries bytes as they are: kombu's "raw".
var Raw Serializer = rawSerializer{}

func (rawSerializer) Name() string            { return "raw" }
func (rawSerializer) ContentType() string     { return typeData }
func (rawSerializer) ContentEncoding() string { return "binary" }

// Append takes []byte and string only.
func (s rawSerializer) Append(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return append(dst, v...), nil
	case string:
		return append(dst, v...), nil
	}
	return encoded(nil, s, fmt.Errorf("only bytes can be sent raw, not %T", v))
}

// Decode returns a copy of data, because data may belong to a driver's buffer.
func (rawSerializer) Decode(data []byte) (any, error) { return slices.Clone(data), nil }
