//go:build unix

package faults

import (
	"bytes"
	"compress/zlib"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/transport"
)

// addressSpace is the limit (ulimit -v, in bytes) under which a worker must survive every bomb. A Go process reserves
// about 1.5 GiB of addresses before it does anything; what remains is less than any of the bombs wants.
const addressSpace = 2560 << 20

// bombSize is what each compressed bomb expands to: many times what the limits allow.
const bombSize = 1 << 30

// bzip2Zeros is 200 MiB of zero bytes by bzip2 -9: Go has no writer to make it with.
//
//go:embed testdata/zeros-200MiB.bz2
var bzip2Zeros []byte

// TestBombs sends bodies made to exhaust memory to a worker whose memory is limited by the kernel. Each must be refused
// and set aside, and the task behind it must run.
func TestBombs(t *testing.T) {
	if testing.Short() {
		t.Skip("making the bombs takes a while")
	}
	s := onRedis(t, testservice.Redis(t))
	prlimit := testservice.Program(t, "PRLIMIT", "prlimit") // of util-linux
	w := s.setup.start(t, prlimit, "--as="+strconv.Itoa(addressSpace))
	before := resident(t, w)
	bombs := bombs(t)
	for name, m := range bombs {
		m.Headers.Task, m.Headers.ID = note.Name(), protocol.NewID()
		m.Headers.Lang, m.ContentEncoding = "py", "binary"
		if err := s.client.Transport().Publish(t.Context(), []transport.Publication{{Message: m, RoutingKey: "celery"}}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r, err := note.Send(t.Context(), s.client, noteArgs{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Get(deadlineOf(t, 20*time.Second)); err != nil {
			t.Fatalf("the task behind bomb %q: %v; the worker said: %s", name, err, w.log)
		}
		t.Logf("%s: peak %d MB above the start", name, (resident(t, w)-before)>>20)
	}
	grown := resident(t, w) - before
	if err := w.stop(); err != nil { // and with it the last message is settled
		t.Errorf("warm stop: %v: %s", err, w.log)
	}
	fmt.Fprintf(os.Stderr, "%d bombs refused; peak resident memory grew by %d MB\n", len(bombs), grown>>20)
	if limit := int64(8 * compression.DefaultLimit); grown > limit {
		t.Errorf("peak memory grew by %d MB; expected at most %d", grown>>20, limit>>20)
	}
	qs, err := s.client.Transport().(transport.Inspector).Quarantined(t.Context(), "celery", 100)
	if err != nil || len(qs) != len(bombs) {
		t.Errorf("%d in quarantine, %v; expected %d", len(qs), err, len(bombs))
	}
	for _, q := range qs {
		t.Logf("refused: %.150s", q.Reason)
	}
}

func bombs(t testing.TB) map[string]*protocol.Message {
	compressed := func(mime string, body []byte) *protocol.Message {
		return &protocol.Message{ContentType: "application/json", Body: body, Headers: protocol.Headers{Compression: mime}}
	}
	plain := func(mime string, body []byte) *protocol.Message {
		return &protocol.Message{ContentType: mime, Body: body}
	}
	long := func(code byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0x93, code}, n) }
	zlibbed := deflated(t, bombSize)
	return map[string]*protocol.Message{
		"zlib":              compressed("application/x-gzip", zlibbed),
		"zlib twice":        compressed("application/x-gzip", deflate(t, zlibbed)),
		"xz":                compressed("application/x-lzma", xzed(t)),
		"zstd":              compressed("application/zstd", zstded(t)),
		"brotli":            compressed("application/x-brotli", brotlied(t)),
		"bzip2":             compressed("application/x-bz2", bzip2Zeros),
		"nested JSON":       plain("application/json", bytes.Repeat([]byte("["), 20<<20)),
		"digits":            plain("application/json", append(append([]byte("[["), bytes.Repeat([]byte("9"), 8<<20)...), "],{},null]"...)),
		"msgpack array":     plain("application/x-msgpack", long(0xdd, 1<<32-1)),
		"msgpack map":       plain("application/x-msgpack", long(0xdf, 1<<32-1)),
		"msgpack text":      plain("application/x-msgpack", long(0xdb, 1<<32-1)),
		"msgpack nested":    plain("application/x-msgpack", bytes.Repeat([]byte{0x91}, 20<<20)),
		"billion laughs":    plain("application/x-yaml", laughs()),
		"yaml nested":       plain("application/x-yaml", bytes.Repeat([]byte("["), 1<<20)),
		"empty dicts":       compressed("application/x-gzip", deflate(t, []byte("["+strings.Repeat("{},", 16<<20)+"0]"))),
		"a little too deep": plain("application/json", []byte("["+strings.Repeat("[", 1100)+strings.Repeat("]", 1100)+",{},null]")),
	}
}

// laughs is the YAML form of the billion laughs: each anchor holds ten of the one before.
func laughs() []byte {
	var b bytes.Buffer
	b.WriteString("a0: &a0 [lol]\n")
	for i := 1; i < 12; i++ {
		ref, _ := json.Marshal(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10))
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.Trim(string(ref), `",`))
	}
	return b.Bytes()
}

// inflate writes size zero bytes to a compressor and closes it.
func inflate(t testing.TB, w interface {
	Write([]byte) (int, error)
	Close() error
}, size int) {
	zeros := make([]byte, 1<<20)
	for range size / len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func deflated(t testing.TB, size int) []byte {
	var b bytes.Buffer
	inflate(t, zlib.NewWriter(&b), size)
	return b.Bytes()
}

func deflate(t testing.TB, data []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func xzed(t testing.TB) []byte {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	inflate(t, w, bombSize/8) // this writer is slow
	return b.Bytes()
}

func zstded(t testing.TB) []byte {
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	inflate(t, w, bombSize)
	return b.Bytes()
}

func brotlied(t testing.TB) []byte {
	var b bytes.Buffer
	inflate(t, brotli.NewWriterLevel(&b, 2), bombSize)
	return b.Bytes()
}

// resident is the peak resident memory of a process, in bytes.
func resident(t testing.TB, p *process) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
