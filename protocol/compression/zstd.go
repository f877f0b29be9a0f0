package compression

import (
	"bytes"
	"errors"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is what a zstd body may ask a decoder to keep: the window of level 19, with room for some above.
const maxWindow = 32 << 20

// The encoders write one frame with its content size in the header, which kombu needs to read it. For less than 256
// bytes the format has room for the size in a single segment only. EncodeAll may be called concurrently.
var (
	zstdEncoder      = sync.OnceValues(func() (*zstd.Encoder, error) { return newZstdEncoder(false) })
	zstdSmallEncoder = sync.OnceValues(func() (*zstd.Encoder, error) { return newZstdEncoder(true) })
)

func newZstdEncoder(singleSegment bool) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true),
		zstd.WithSingleSegment(singleSegment))
}

func encodeZstd(body []byte) ([]byte, error) {
	encoder := zstdEncoder
	switch {
	case len(body) == 0: // EncodeAll writes no frame at all for nothing
		return bytes.Clone(emptyZstd), nil
	case len(body) < 256:
		encoder = zstdSmallEncoder
	}
	e, err := encoder()
	if err != nil {
		return nil, err
	}
	return e.EncodeAll(body, nil), nil
}

// emptyZstd is a frame of content size zero: magic, single segment, size, an empty last block.
var emptyZstd = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00}

// A decoder with concurrency 1 has no goroutines, so that the pool may drop it.
var zstdDecoders = sync.Pool{New: func() any {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return err
	}
	return d
}}

func decodeZstd(body []byte, limit int) ([]byte, error) {
	if len(body) == 0 {
		return nil, errors.New("empty body")
	}
	pooled := zstdDecoders.Get()
	d, ok := pooled.(*zstd.Decoder)
	if !ok {
		return nil, pooled.(error)
	}
	if err := d.Reset(bytes.NewReader(body)); err != nil {
		return nil, err
	}
	data, err := readLimited(d, len(body), limit)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = errWindow
	}
	if resetErr := d.Reset(nil); resetErr == nil {
		zstdDecoders.Put(d)
	}
	return data, err
}
