// Package compression is kombu.compression in Go: the methods a message's compression header may name, each under
// kombu's MIME type and aliases, and each decompressing through a limit, because a body of a few bytes can stand for
// gigabytes.
//
// One layer is undone per call. What a body holds after that is left to the serializer.
package compression

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// DefaultLimit is the number of decompressed bytes to allow where nothing else is configured.
const DefaultLimit = 64 << 20

// method is one way to compress. decode returns at most limit bytes, or a *TooLargeError.
type method struct {
	mime    string
	aliases []string
	encode  func(body []byte) ([]byte, error)
	decode  func(body []byte, limit int) ([]byte, error)
}

// methods follow kombu's table. Its "gzip" is a zlib stream without gzip's header; a real gzip body is an error, there
// as here.
var methods = [...]method{
	{"application/x-gzip", []string{"gzip", "zlib"}, encodeZlib, decodeZlib},
	{"application/x-bz2", []string{"bzip2", "bzip"}, encodeBzip2, decodeBzip2},
	{"application/x-lzma", []string{"lzma", "xz"}, encodeXZ, decodeXZ},
	{"application/x-brotli", []string{"brotli"}, encodeBrotli, decodeBrotli},
	{"application/zstd", []string{"zstd", "zstandard"}, encodeZstd, decodeZstd},
}

func find(name string) (*method, error) {
	for i := range methods {
		if m := &methods[i]; m.mime == name || slices.Contains(m.aliases, name) {
			return m, nil
		}
	}
	return nil, &UnknownError{Name: name}
}

// Lookup returns the MIME type of a compression known by it or by an alias, as the compression header carries it.
func Lookup(nameOrMIME string) (mime string, ok bool) {
	m, err := find(nameOrMIME)
	if err != nil {
		return "", false
	}
	return m.mime, true
}

// Compress compresses body and returns the MIME type for the header with it. An unknown name is an *UnknownError.
// bzip2 can be read only: Go has no encoder for it, and its ratio is not worth one.
func Compress(nameOrMIME string, body []byte) (data []byte, mime string, err error) {
	m, err := find(nameOrMIME)
	if err != nil {
		return nil, "", err
	}
	data, err = m.encode(body)
	if err != nil {
		return nil, "", fmt.Errorf("compress with %s: %w", m.mime, err)
	}
	return data, m.mime, nil
}

// Decompress undoes Compress, by Go or by Python. The result has at most limit bytes, DefaultLimit if limit is not
// positive; more is a *TooLargeError. Working memory is bounded as well, whatever window a body declares.
func Decompress(nameOrMIME string, body []byte, limit int) (data []byte, err error) {
	m, err := find(nameOrMIME)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = DefaultLimit
	}
	defer func() { // a decoder must not end a worker over a hostile body
		if r := recover(); r != nil {
			data, err = nil, fmt.Errorf("decompress %s: %v", m.mime, r)
		}
	}()
	data, err = m.decode(body, limit)
	if err != nil {
		return nil, fmt.Errorf("decompress %s: %w", m.mime, err)
	}
	return data, nil
}

// TooLargeError says that a body decompresses to more than Limit bytes.
type TooLargeError struct{ Limit int }

func (e *TooLargeError) Error() string {
	return "more than " + strconv.Itoa(e.Limit) + " bytes decompressed"
}

// UnknownError names a compression that does not exist.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string { return fmt.Sprintf("unknown compression %.100q", e.Name) }

var errWindow = errors.New("window is too large")

// readLimited reads all of r. It begins with a small multiple of what it read compressed and doubles from there, so
// that memory follows what really comes out.
func readLimited(r io.Reader, compressed, limit int) ([]byte, error) {
	buf := make([]byte, 0, max(512, min(4*compressed, limit+1)))
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, &TooLargeError{Limit: limit}
		}
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return nil, err
		}
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(2*cap(buf), max(limit+1, len(buf)+1)))
			copy(grown, buf)
			buf = grown
		}
	}
}
