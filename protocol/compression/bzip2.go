package compression

import (
	"bytes"
	"compress/bzip2"
	"errors"
)

var errBzip2 = errors.New("bzip2 is read-only, choose another compression")

func encodeBzip2([]byte) ([]byte, error) { return nil, errBzip2 }

func decodeBzip2(body []byte, limit int) ([]byte, error) {
	return readLimited(bzip2.NewReader(bytes.NewReader(body)), len(body), limit)
}
