package rabbitmq

import (
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	protocolHeader = 8        // bytes a client writes before its first frame: "AMQP" and the version
	readBuffer     = 32 << 10 // bytes asked of the connection at once
	corkBuffer     = 64 << 10 // bytes held back before they are written all the same
	directRead     = 4 << 10  // a body of at least so many bytes is read past the buffer
)

// socket is the byte stream under amqp091-go. It keeps header tables away from that library, which closes the
// connection on those of Python that it does not understand (64-bit integers, deep or long ones): it shows each as one
// byte array, and puts the bytes of such an array back in place of the table on the way out. See frame.go.
//
// Every write has a deadline, since a broker that is short of memory or dead stops reading. The first failed write
// fails all later ones: nobody knows how much of a frame has left.
//
// Write, Close, cork, uncork and the deadlines may be called concurrently, Read by one goroutine.
type socket struct {
	net.Conn
	writeTimeout time.Duration
	frameMax     atomic.Int64 // as agreed with the broker; larger frames end the connection

	in      framer // Read's own, as is all until mu
	buffer  []byte
	unread  []byte // of buffer
	ready   []byte // of in.out
	readErr error

	mu      sync.Mutex // guards the following, and is held while writing
	out     framer
	pending []byte // to be written
	corks   int
	err     error

	deadlineMu sync.Mutex // guards the following; a leaf, taken under mu too
	deadline   time.Time  // of writes, as set from outside; zero: none
}

func newSocket(conn net.Conn, writeTimeout time.Duration) *socket {
	s := &socket{Conn: conn, writeTimeout: writeTimeout}
	s.frameMax.Store(math.MaxInt32)
	s.in = framer{
		gathers: func(kind byte, _ uint16) bool { return kind == frameHeader },
		rewrite: func(dst, frame []byte) []byte { return appendWrapped(dst, frame, int(s.frameMax.Load())) },
	}
	s.out = framer{
		// Channel 0 is the connection's: there pass our capabilities and the frame size that was agreed on.
		gathers: func(kind byte, channel uint16) bool {
			return kind == frameHeader || kind == frameMethod && channel == 0
		},
		rewrite: s.outgoing,
		pass:    protocolHeader,
	}
	return s
}

func (s *socket) outgoing(dst, frame []byte) []byte {
	if frame[0] == frameHeader {
		return appendUnwrapped(dst, frame)
	}
	if size, ok := tunedFrameMax(frame); ok && size > 0 { // 0 is no limit
		s.frameMax.Store(int64(size))
	}
	return appendStartOK(dst, frame)
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(s.ready) > 0:
			m := copy(p[n:], s.ready)
			s.ready = s.ready[m:]
			n += m
		case len(s.unread) == 0 && n > 0:
			return n, nil
		case len(s.unread) == 0:
			m, err := s.fill(p)
			if m > 0 || err != nil {
				return m, err
			}
		case s.in.pass > 0:
			m := copy(p[n:], s.unread[:min(s.in.pass, int64(len(s.unread)))])
			s.unread = s.unread[m:]
			s.in.pass -= int64(m)
			n += m
		default:
			var m int
			m, s.ready = s.in.take(s.unread)
			s.unread = s.unread[m:]
		}
	}
	return n, nil
}

// fill reads from the connection: into the buffer, or into p what passes and is large.
func (s *socket) fill(p []byte) (n int, err error) {
	if s.readErr != nil {
		return 0, s.readErr
	}
	if size := min(s.in.pass, int64(len(p))); size >= directRead {
		n, err = s.Conn.Read(p[:size])
		s.in.pass -= int64(n)
		return n, err
	}
	if s.buffer == nil {
		s.buffer = make([]byte, readBuffer)
	}
	n, s.readErr = s.Conn.Read(s.buffer)
	s.unread = s.buffer[:n]
	if n == 0 {
		return 0, s.readErr
	}
	return 0, nil
}

// Write implements net.Conn. What it holds back, under a cork or because a frame is not complete, counts as written.
func (s *socket) Write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n = len(p)
	for len(p) > 0 && s.err == nil {
		if s.out.pass == 0 {
			m, out := s.out.take(p)
			p = p[m:]
			s.send(out)
			continue
		}
		m := int(min(s.out.pass, int64(len(p))))
		s.send(p[:m])
		s.out.pass -= int64(m)
		p = p[m:]
	}
	if s.corks == 0 {
		s.flush()
	}
	if s.err != nil {
		return 0, s.err
	}
	return n, nil
}

// send adds p to what is pending, or writes both when that would be too much. The caller holds mu.
func (s *socket) send(p []byte) {
	if len(s.pending)+len(p) > corkBuffer {
		s.flush()
	}
	if len(p) <= corkBuffer {
		s.pending = append(s.pending, p...)
		return
	}
	s.write(p)
}

// flush writes what is pending. The caller holds mu.
func (s *socket) flush() {
	if len(s.pending) > 0 {
		s.write(s.pending)
		s.pending = s.pending[:0]
	}
}

// write writes p, before the deadline. The caller holds mu.
func (s *socket) write(p []byte) {
	if s.err != nil {
		return
	}
	if s.err = s.arm(); s.err == nil {
		_, s.err = s.Conn.Write(p)
	}
}

// arm sets the deadline of one write.
func (s *socket) arm() error {
	s.deadlineMu.Lock()
	defer s.deadlineMu.Unlock()
	deadline := s.deadline
	if s.writeTimeout > 0 {
		if t := time.Now().Add(s.writeTimeout); deadline.IsZero() || t.Before(deadline) {
			deadline = t
		}
	}
	return s.Conn.SetWriteDeadline(deadline)
}

// cork holds back what is written until uncork, so that the frames of a batch leave in one system call. Beyond 64 KiB
// it is written through. Corks of several goroutines may overlap; each must be drawn.
func (s *socket) cork() {
	s.mu.Lock()
	s.corks++
	s.mu.Unlock()
}

// uncork writes what cork has held back, also under other corks. Its error is that of the first write that failed.
func (s *socket) uncork() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.corks--
	s.flush()
	return s.err
}

// SetDeadline implements net.Conn. It does not wait for a write that is under way: it is how one is ended.
func (s *socket) SetDeadline(t time.Time) error {
	s.deadlineMu.Lock()
	defer s.deadlineMu.Unlock()
	s.deadline = t
	return s.Conn.SetDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(t time.Time) error {
	s.deadlineMu.Lock()
	defer s.deadlineMu.Unlock()
	s.deadline = t
	return s.Conn.SetWriteDeadline(t)
}
