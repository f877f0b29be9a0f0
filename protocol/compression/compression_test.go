package compression

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var goldenBody = strings.Repeat(`[[1,2],{},{"callbacks":null}] `, 4)

// What Python's own modules made of goldenBody.
var golden = []struct{ comment, name, data string }{
	{"zlib", "application/x-gzip", "eJyLjjbUMYrVqa7VqVZKTszJSUpMzi5WssorzcmpjVWIppksAJajKQE="},
	{"bz2", "application/x-bz2", "QlpoOTFBWSZTWdx4wpcAABWbgFAEMBAACjgNCgogAFCmmRiYmIFVR6TTIYEoYNHZs6PSpUgqTPCxcyUMEiRBsgyaNlxomfi7kinChIbjxhS4"},
	{"xz", "application/x-lzma", "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AB3ACVdAC3gwFg1ZDpET+eHVZB76a+dY7j8Po8BgNSKe6dK8t3GSVmFgAAAAAAA23x91huHvpAAAUF4YTI6lx+2830BAAAAAARZWg=="},
	{"xz -9, sha256", "xz", "/Td6WFoAAArh+wyhAgAhARwAAAAQz1jM4AB3ACVdAC3gwFg1ZDpET+eHVZB76a+dY7j8Po8BgNSKe6dK8t3GSVmFgAAAAAAATC8Uz0lREl8VlKps/nNzq3wgVUHaUwIKZSFzUZxCNVkAAVl4OKohFRibS5oBAAAAAApZWg=="},
	{"two xz streams", "xz", "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4AA7ACVdAC3gwFg1ZDpET+eHVZB76a+dY7j8Po8BgNSKe6dK8t3BbBGFgAAAAAAAd6/hP8mKltYAAUE86LeL5h+2830BAAAAAARZWv03elhaAAAE5ta0RgIAIQEWAAAAdC/lo+AAOwAlXQAt4MBYNWQ6RE/nh1WQe+mvnWO4/D6PAYDUinunSvLdwWwRhYAAAAAAAHev4T/JipbWAAFBPOi3i+YftvN9AQAAAAAEWVo="},
	{"lzma alone", "lzma", "XQAAgAD//////////wAt4MBYNWQ6RE/nh1WQe+mvnWO4/D6PAYDUinunSvLdxkle4Hj///1+YAA="},
	{"brotli", "application/x-brotli", "G3cA+C0O7MbO7zBQx++ipq+KGoRlq0vK6NSlSExfue21CNtcnzIIwGohEFba283I+gQ="},
	{"zstd", "application/zstd", "KLUv/SB4LQEA8FtbMSwyXSx7fSx7ImNhbGxiYWNrcyI6bnVsbH1dIAEAXpiUEw=="},
	{"zstd stream", "zstandard", "KLUv/QBYLQEA8FtbMSwyXSx7fSx7ImNhbGxiYWNrcyI6bnVsbH1dIAEAXpiUEw=="},
}

func unbase64(tb testing.TB, text string) []byte {
	tb.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func TestDecompressGolden(t *testing.T) {
	t.Parallel()
	for _, tt := range golden {
		data := unbase64(t, tt.data)
		kept := bytes.Clone(data)
		got, err := Decompress(tt.name, data, 0)
		if err != nil || string(got) != goldenBody {
			t.Errorf("%s: %q, %v", tt.comment, got, err)
		}
		if !bytes.Equal(data, kept) {
			t.Errorf("%s: the body was changed", tt.comment)
		}
		if got, err := Decompress(tt.name, data, len(goldenBody)); err != nil || string(got) != goldenBody {
			t.Errorf("%s at its exact limit: %q, %v", tt.comment, got, err)
		}
		var tooLarge *TooLargeError
		if _, err := Decompress(tt.name, data, len(goldenBody)-1); !errors.As(err, &tooLarge) || tooLarge.Limit != len(goldenBody)-1 {
			t.Errorf("%s over its limit: %v", tt.comment, err)
		}
		for cut := range data {
			if got, err := Decompress(tt.name, data[:cut], 0); err == nil && !endsStream(tt.comment, cut) {
				t.Errorf("%s cut to %d of %d bytes: %q", tt.comment, cut, len(data), got)
			}
		}
	}
}

// endsStream reports the one cut of a golden body that leaves something whole.
func endsStream(comment string, cut int) bool { return comment == "two xz streams" && cut == 100 }

func TestNames(t *testing.T) {
	t.Parallel()
	for alias, mime := range map[string]string{
		"gzip": "application/x-gzip", "zlib": "application/x-gzip", "application/x-gzip": "application/x-gzip",
		"bzip2": "application/x-bz2", "bzip": "application/x-bz2", "lzma": "application/x-lzma", "xz": "application/x-lzma",
		"brotli": "application/x-brotli", "zstd": "application/zstd", "zstandard": "application/zstd",
	} {
		if got, ok := Lookup(alias); !ok || got != mime {
			t.Errorf("Lookup(%q) = %q, %v; want %q", alias, got, ok, mime)
		}
	}
	for _, name := range []string{"", "GZIP", "lz4", "deflate"} {
		if got, ok := Lookup(name); ok {
			t.Errorf("Lookup(%q) = %q", name, got)
		}
		var unknown *UnknownError
		if _, err := Decompress(name, nil, 0); !errors.As(err, &unknown) || unknown.Name != name {
			t.Errorf("decompress %q: %v", name, err)
		}
		if _, _, err := Compress(name, nil); !errors.As(err, &unknown) {
			t.Errorf("compress %q: %v", name, err)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 300_000)
	seed := uint32(1)
	for i := range noise {
		seed = seed*1664525 + 1013904223
		noise[i] = byte(seed >> 24)
	}
	bodies := map[string][]byte{"empty": {}, "byte": {7}, "json": []byte(goldenBody), "text": bytes.Repeat([]byte(goldenBody), 20_000), "noise": noise}
	for _, name := range []string{"gzip", "xz", "brotli", "zstd"} {
		for kind, body := range bodies {
			data, mime, err := Compress(name, body)
			if err != nil {
				t.Errorf("%s %s: %v", name, kind, err)
				continue
			}
			if got, err := Decompress(mime, data, 0); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s %s: %d bytes come back as %d, %v", name, kind, len(body), len(got), err)
			}
		}
	}
	if _, _, err := Compress("bzip2", nil); !errors.Is(err, errBzip2) {
		t.Errorf("bzip2 is written: %v", err)
	}
}

// kombu reads zlib, and zstd frames that tell their content size only.
func TestForm(t *testing.T) {
	t.Parallel()
	data, _, err := Compress("gzip", []byte(goldenBody))
	if err != nil || !bytes.HasPrefix(data, []byte{0x78, 0x9c}) {
		t.Errorf("gzip begins with % x, %v; want 78 9c", data[:2], err)
	}
	for _, size := range []int{0, 1, 255, 256, 70_000, 9 << 20} {
		data, _, err := Compress("zstd", make([]byte, size))
		var header zstd.Header
		if err := errors.Join(err, header.Decode(data)); err != nil || !header.HasFCS || header.FrameContentSize != uint64(size) {
			t.Errorf("zstd frame of %d bytes: %+v, %v", size, header, err)
		}
	}
	var real bytes.Buffer
	w := gzip.NewWriter(&real)
	_, _ = w.Write([]byte(goldenBody))
	_ = w.Close()
	if got, err := Decompress("gzip", real.Bytes(), 0); err == nil {
		t.Errorf("a gzip file reads as %q; kombu refuses it", got)
	}
}

func TestConcurrent(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				for _, tt := range golden {
					data, err := base64.StdEncoding.DecodeString(tt.data)
					if err != nil {
						t.Error(err)
					}
					_, _ = Decompress(tt.name, data[:len(data)/2], 0) // what an error leaves must not reach the next
					if got, err := Decompress(tt.name, data, 0); err != nil || string(got) != goldenBody {
						t.Errorf("%s: %v", tt.comment, err)
					}
				}
			}
		})
	}
	wg.Wait()
}

// zeros compresses size zero bytes with the encoder w makes.
func zeros(tb testing.TB, size int, open func(io.Writer) (io.WriteCloser, error)) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := open(&out)
	if err != nil {
		tb.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	for ; size > 0; size -= len(chunk) {
		if _, err := w.Write(chunk); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// Bodies that unfold to 8 MB, or declare windows of gigabytes, must cost no more than a small multiple of the limit.
//
//nolint:paralleltest // measures what the process allocates
func TestBombs(t *testing.T) {
	const size, limit = 8 << 20, 512 << 10
	pack := func(name string) []byte {
		data, _, err := Compress(name, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	hugeDict := func(code byte) []byte { // the golden xz with another dictionary size declared
		data := unbase64(t, golden[2].data)
		data[12+4] = code
		header := data[12:24]
		binary.LittleEndian.PutUint32(header[8:], crc32.ChecksumIEEE(header[:8]))
		return data
	}
	alone := unbase64(t, golden[5].data)
	binary.LittleEndian.PutUint32(alone[1:], 1<<32-1)
	window := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa0, 0x01, 0x00, 0x00} // a frame with a window of a gigabyte
	tests := []struct {
		comment, name string
		body          []byte
		ok            bool // reads within the bound, else is an error
	}{
		{"zlib", "gzip", pack("gzip"), false},
		{"brotli", "brotli", pack("brotli"), false},
		{"zstd", "zstd", pack("zstd"), false},
		{"xz", "xz", zeros(t, size, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }), false},
		{"lzma", "xz", zeros(t, size, func(w io.Writer) (io.WriteCloser, error) { return lzma.NewWriter(w) }), false},
		{"xz dictionary of 4 GB", "xz", hugeDict(40), true},
		{"xz dictionary of 1 GB", "xz", hugeDict(36), true},
		{"lzma dictionary of 4 GB", "xz", alone, true},
		{"zstd window", "zstd", window, false},
	}
	for _, tt := range tests {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := Decompress(tt.name, tt.body, limit)
		runtime.ReadMemStats(&after)
		spent := after.TotalAlloc - before.TotalAlloc
		if tt.ok && (err != nil || string(got) != goldenBody) {
			t.Errorf("%s: %q, %v", tt.comment, got, err)
		}
		var tooLarge *TooLargeError
		if !tt.ok && tt.comment != "zstd window" && !errors.As(err, &tooLarge) || !tt.ok && err == nil {
			t.Errorf("%s: %d bytes, %v", tt.comment, len(got), err)
		}
		if bound := uint64(4*limit + 10<<20); spent > bound {
			t.Errorf("%s: %d bytes allocated, more than %d", tt.comment, spent, bound)
		}
	}
}

func FuzzDecompress(f *testing.F) {
	for _, tt := range golden {
		f.Add(tt.name, unbase64(f, tt.data))
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		const limit = 1 << 16
		for _, m := range methods {
			if _, ok := Lookup(name); ok && m.mime != name {
				continue
			}
			got, err := Decompress(m.mime, data, limit)
			if err != nil {
				if strings.Contains(err.Error(), "runtime error") {
					t.Logf("%s panicked and was caught: %v", m.mime, err)
				}
				continue
			}
			if len(got) > limit {
				t.Fatalf("%s: %d bytes", m.mime, len(got))
			}
		}
	})
}

func BenchmarkDecompress(b *testing.B) {
	body := []byte(strings.Repeat(goldenBody, 10))
	for _, name := range []string{"gzip", "zstd", "brotli", "xz"} {
		data, _, err := Compress(name, body)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decompress(name, data, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
