// Package serialization is kombu.serialization in Go: json, msgpack, yaml, pickle (read only) and raw, under kombu's
// names and MIME types, and the accept list that keeps unwanted ones out.
package serialization

// Serializer turns values into bytes and back.
type Serializer interface {
	Name() string            // kombu's name: "json"
	ContentType() string     // "application/json"
	ContentEncoding() string // "utf-8" or "binary"

	// Append encodes v, any Go value (package value's Of says how it is read), and appends the bytes to dst.
	Append(dst []byte, v any) ([]byte, error)
	// Decode returns a canonical value (package value). Hostile input is refused within the limits of the package.
	Decode(data []byte) (any, error)
}
