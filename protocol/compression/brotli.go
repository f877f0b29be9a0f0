package compression

import (
	"bytes"

	"github.com/andybalholm/brotli"
)

// brotliLevel is where brotli is as fast as zlib; kombu's 11 is fifty times slower for a few percent.
const brotliLevel = 5

func encodeBrotli(body []byte) ([]byte, error) {
	var out bytes.Buffer
	w := brotli.NewWriterLevel(&out, brotliLevel)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

func decodeBrotli(body []byte, limit int) ([]byte, error) {
	return readLimited(brotli.NewReader(bytes.NewReader(body)), len(body), limit)
}
