package worker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// What a process pool and its children say to each other: frames of a length (4 bytes, of what follows), a kind (1 byte),
// the number of the run they belong to (8 bytes) and a body. Numbers are big-endian. One run is under way at a time.
const (
	frameHello    = 'h' // child: it serves; the names of its tasks
	frameRun      = 'r' // parent: a task to run
	frameCancel   = 'c' // parent: the run's context is to be done, with this cause
	frameReport   = 'p' // child: a state to store
	frameReported = 'a' // parent: the answer to it, an error's text or nothing
	frameDone     = 'd' // child: what came of the run
)

const (
	frameHead = 4 + 1 + 8
	// maxFrame bounds a frame: what a broker holds in one message fits in, base64 included.
	maxFrame = 768 << 20
	// firstRead is how much of a frame is made room for before it has come: a length alone is no reason to allocate it.
	firstRead = 1 << 20
)

var errFrame = errors.New("a frame of the pool's pipe makes no sense")

type frame struct {
	kind byte
	run  uint64
	body []byte
}

// pipe is one process's end of the conversation. Read belongs to one goroutine, write to any.
type pipe struct {
	in  *os.File
	out *os.File
	r   *bufio.Reader

	mu  sync.Mutex
	buf []byte
}

func newPipe(in, out *os.File) *pipe {
	return &pipe{in: in, out: out, r: bufio.NewReaderSize(in, 16<<10)}
}

// write sends a frame, whose body is appended by the function given, unless that fails. Frames are made one after the
// other, in the order in which they are sent. It blocks while the other side does not read.
func (p *pipe) write(kind byte, run uint64, body func(dst []byte) ([]byte, error)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := append(p.buf[:0], 0, 0, 0, 0, kind)
	b = binary.BigEndian.AppendUint64(b, run)
	b, err := body(b)
	if err != nil {
		return err
	}
	if len(b) > maxFrame {
		return fmt.Errorf("a frame of %d bytes is larger than %d", len(b), maxFrame)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if cap(b) <= keptFrame {
		p.buf = b
	}
	_, err = p.out.Write(b)
	return err
}

// keptFrame is the largest buffer kept for the next frame.
const keptFrame = 64 << 10

// read waits for a frame.
func (p *pipe) read() (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return frame{}, err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size < frameHead-4 || size > maxFrame {
		return frame{}, errFrame
	}
	f := frame{kind: head[4], run: binary.BigEndian.Uint64(head[5:])}
	size -= frameHead - 4
	f.body = make([]byte, min(size, firstRead))
	for read := 0; read < size; {
		if read == len(f.body) {
			f.body = append(f.body, make([]byte, min(len(f.body), size-len(f.body)))...)
		}
		n, err := io.ReadFull(p.r, f.body[read:])
		if err != nil {
			return frame{}, err
		}
		read += n
	}
	return f, nil
}

// close ends the conversation: the other side reads its end.
func (p *pipe) close() {
	_ = p.out.Close()
	_ = p.in.Close()
}

// appendField appends bytes with their length before them.
func appendField[T string | []byte](dst []byte, v T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...)
}

// appendFlags appends up to eight truths as a byte.
func appendFlags(dst []byte, flags ...bool) []byte {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return append(dst, b)
}

// fields reads the body of a frame. After an error everything is empty.
type fields struct {
	body []byte
	err  error
}

func (f *fields) fail() { f.body, f.err = nil, errFrame }

func (f *fields) number() uint64 {
	n, size := binary.Uvarint(f.body)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.body = f.body[size:]
	return n
}

func (f *fields) signed() int64 {
	n, size := binary.Varint(f.body)
	if size <= 0 {
		f.fail()
		return 0
	}
	f.body = f.body[size:]
	return n
}

func (f *fields) bytes() []byte {
	n := f.number()
	if n > uint64(len(f.body)) {
		f.fail()
		return nil
	}
	b := f.body[:n]
	f.body = f.body[n:]
	return b
}

func (f *fields) text() string { return string(f.bytes()) }

func (f *fields) flags(flags ...*bool) {
	if len(f.body) == 0 {
		f.fail()
		return
	}
	for i, p := range flags {
		*p = f.body[0]&(1<<i) != 0
	}
	f.body = f.body[1:]
}
