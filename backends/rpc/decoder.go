package rpc

import (
	"bytes"
	"reflect"
	"strings"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

// pack makes a document of what matters of a reply: its content type, encoding and compression, a line each, and its
// body. It is decoded when somebody wants it, and by each of them, so that nobody shares values with another.
func pack(m *protocol.Message) string {
	var b strings.Builder
	b.Grow(len(m.ContentType) + len(m.ContentEncoding) + len(m.Headers.Compression) + len(m.Body) + 3)
	for _, line := range []string{m.ContentType, m.ContentEncoding, m.Headers.Compression} {
		b.WriteString(strings.ReplaceAll(line, "\n", " "))
		b.WriteByte('\n')
	}
	b.Write(m.Body)
	return b.String()
}

// decoder reads packed replies.
type decoder struct{ accept serialization.Accept }

// newDecoder takes what is accepted, or what the serializer writes if nothing is said.
func newDecoder(accept serialization.Accept, s serialization.Serializer) (d decoder, err error) {
	if d.accept = accept; reflect.ValueOf(accept).IsZero() {
		d.accept, err = serialization.NewAccept(s.Name())
	}
	return d, err
}

// Decode is backends.Decoder's. The meta has the id it was asked for, whatever it says itself.
func (d decoder) Decode(id string, document []byte) (*protocol.ResultMeta, error) {
	m := &protocol.Message{}
	rest := document
	for _, field := range []*string{&m.ContentType, &m.ContentEncoding, &m.Headers.Compression} {
		line, after, _ := bytes.Cut(rest, []byte{'\n'})
		*field, rest = string(line), after
	}
	m.Body = rest
	meta, err := protocol.DecodeReply(m, d.accept)
	if err != nil {
		return nil, &backends.DecodeError{TaskID: id, Err: err}
	}
	meta.TaskID = id
	return meta, nil
}
