package compression

import (
	"bytes"
	"compress/zlib"
	"io"
	"sync"
)

// zlib's states weigh 40 kB to read and 800 kB to write, so both are kept.
var (
	zlibReaders sync.Pool
	zlibWriters = sync.Pool{New: func() any { return zlib.NewWriter(nil) }}
)

func encodeZlib(body []byte) ([]byte, error) {
	w := zlibWriters.Get().(*zlib.Writer)
	defer zlibWriters.Put(w)
	var out bytes.Buffer
	w.Reset(&out)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

func decodeZlib(body []byte, limit int) ([]byte, error) {
	src := bytes.NewReader(body)
	r, _ := zlibReaders.Get().(io.ReadCloser)
	var err error
	if r == nil {
		r, err = zlib.NewReader(src)
	} else {
		err = r.(zlib.Resetter).Reset(src, nil)
	}
	if err != nil {
		return nil, err
	}
	data, err := readLimited(r, len(body), limit)
	if err == nil { // after an error the state is not worth trusting
		zlibReaders.Put(r)
	}
	return data, err
}
