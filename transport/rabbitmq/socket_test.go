package rabbitmq

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
)

func frame(kind byte, channel uint16, payload string) string {
	b := binary.BigEndian.AppendUint16([]byte{kind}, channel)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	return string(append(b, payload...)) + "\xce"
}

// contentHeader is a content header frame; properties stand after the flags.
func contentHeader(size int, flags uint16, properties string) string {
	b := []byte{0, 60, 0, 0}
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint16(b, flags)
	return frame(frameHeader, 1, string(b)+properties)
}

func longString(text string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
}

func shortString(text string) string { return string([]byte{byte(len(text))}) + text }

// wrapped is a table as amqp091-go is to see it.
func wrapped(raw string) string { return longString("\x01" + rawKey + "x" + longString(raw)) }

// stream is a connection in memory: what is read from it comes in the given pieces, what is written is kept.
type stream struct {
	net.Conn
	pieces [][]byte
	writes [][]byte
	err    error // of the next writes
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *stream) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	s.writes = append(s.writes, bytes.Clone(p))
	return len(p), nil
}

func (s *stream) SetWriteDeadline(time.Time) error { return nil }

func (s *stream) written() string { return string(bytes.Join(s.writes, nil)) }

const (
	greeting = "AMQP\x00\x00\x09\x01"
	// What py-amqp writes: an L that amqp091-go does not know.
	pythonTable = "\x02atL\xff\xff\xff\xfe\xd5\xfa\x0e\x00\x04taskS\x00\x00\x00\x01t"
)

// Each case is a frame as one side writes it, and as the other side is to get it.
var rewrites = []struct{ name, broker, client string }{
	{"method", frame(frameMethod, 1, "\x00\x3c\x00\x3c"), ""},
	{"heartbeat", frame(8, 0, ""), ""},
	{"body", frame(3, 1, strings.Repeat("b", 10_000)), ""},
	{"no headers", contentHeader(5, flagContentType|flagPriority, shortString("ct")+"\x04"), ""},
	{"headers alone", contentHeader(0, flagHeaders|flagPriority, longString(pythonTable)+"\x00"),
		contentHeader(0, flagHeaders|flagPriority, wrapped(pythonTable)+"\x00")},
	{"empty headers", contentHeader(0, flagHeaders|flagPriority, longString("")+"\x00"),
		contentHeader(0, flagHeaders|flagPriority, wrapped("")+"\x00")},
	{"all", contentHeader(1<<40, 0xFFFC, shortString("ct")+shortString("")+longString(pythonTable)+"\x02\x09rest"),
		contentHeader(1<<40, 0xFFFC, shortString("ct")+shortString("")+wrapped(pythonTable)+"\x02\x09rest")},
	{"table too long", contentHeader(0, flagHeaders, longString(pythonTable)[:9]), ""},
	{"content type too long", contentHeader(0, flagContentType|flagHeaders, "\xffct"), ""},
	{"no content type", contentHeader(0, flagContentType|flagContentEncoding|flagHeaders, ""), ""},
	{"no table", contentHeader(0, flagHeaders, "\x00\x00"), ""},
	{"more flags", contentHeader(0, flagHeaders|flagMore, longString(pythonTable)), ""},
	{"short header", frame(frameHeader, 1, "\x00\x3c"), ""},
	{"empty header", frame(frameHeader, 1, ""), ""},
	{"no frame end", strings.TrimSuffix(contentHeader(0, flagHeaders, longString(pythonTable)), "\xce") + "\x00", ""},
}

// split cuts data into pieces of n bytes.
func split(data string, n int) (pieces [][]byte) {
	for len(data) > 0 {
		m := min(n, len(data))
		pieces = append(pieces, []byte(data[:m]))
		data = data[m:]
	}
	return pieces
}

func TestSocketRewrites(t *testing.T) {
	t.Parallel()
	allBroker, allClient := "", ""
	check := func(t *testing.T, broker, client string) {
		t.Helper()
		for _, n := range []int{1, 2, 7, 8, 100, 5000, 1 << 20} {
			got, err := io.ReadAll(newSocket(&stream{pieces: split(broker, n)}, 0))
			if err != nil || string(got) != client {
				t.Fatalf("pieces of %d: read %.200q (%v), want %.200q", n, got, err, client)
			}
			conn := &stream{}
			s := newSocket(conn, 0)
			for _, p := range split(greeting+client, n) {
				if m, err := s.Write(p); m != len(p) || err != nil {
					t.Fatal(m, err)
				}
			}
			if got := conn.written(); got != greeting+broker {
				t.Fatalf("pieces of %d: wrote %.200q, want %.200q", n, got, greeting+broker)
			}
		}
	}
	for _, c := range rewrites {
		if c.client == "" {
			c.client = c.broker
		}
		allBroker, allClient = allBroker+c.broker, allClient+c.client
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			check(t, c.broker, c.client)
		})
	}
	check(t, allBroker, allClient)
}

// Celery writes priority 0, amqp091-go leaves it out.
func TestSocketWritesPriority(t *testing.T) {
	t.Parallel()
	conn := &stream{}
	s := newSocket(conn, 0)
	const flags = flagHeaders | flagDeliveryMode | flagReplyTo
	_, err := s.Write([]byte(greeting +
		contentHeader(0, flags, wrapped("")+"\x02"+shortString("r")) +
		contentHeader(0, flagHeaders, wrapped(""))))
	want := greeting +
		contentHeader(0, flags|flagPriority, longString("")+"\x02\x00"+shortString("r")) +
		contentHeader(0, flagHeaders|flagPriority, longString("")+"\x00")
	if got := conn.written(); err != nil || got != want {
		t.Errorf("wrote %q (%v), want %q", got, err, want)
	}
}

const flagReplyTo = 0x0200

func tuneOK(frameMax uint32) string {
	return frame(frameMethod, 0, "\x00\x0a\x00\x1f\x07\xff"+string(binary.BigEndian.AppendUint32(nil, frameMax))+"\x00\x00")
}

// A frame that grows beyond what was agreed on would end the connection.
func TestSocketCutsLargeTables(t *testing.T) {
	t.Parallel()
	const frameMax = 4096
	overhead := len(contentHeader(0, flagHeaders, longString("")))
	for _, c := range []struct {
		table int
		kept  int // -1: as it is, whole
	}{
		{frameMax - overhead - wrapLength, -1},
		{frameMax - overhead - wrapLength + 1, frameMax - overhead - wrapLength},
		{frameMax - overhead, frameMax - overhead - wrapLength},
		{2 * frameMax, frameMax - overhead - wrapLength},
	} {
		raw := strings.Repeat("t", c.table)
		want := contentHeader(0, flagHeaders, wrapped(raw))
		if c.kept >= 0 {
			want = contentHeader(0, flagHeaders, longString("\x01"+cutKey+"x"+longString(raw[:c.kept])))
		}
		conn := &stream{pieces: split(contentHeader(0, flagHeaders, longString(raw)), 1000)}
		s := newSocket(conn, 0)
		if _, err := s.Write([]byte(greeting + tuneOK(frameMax))); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(s)
		if err != nil || string(got) != want {
			t.Errorf("table of %d bytes: read %d bytes (%v), want %d", c.table, len(got), err, len(want))
		}
		if len(got) > frameMax {
			t.Errorf("table of %d bytes: frame of %d bytes", c.table, len(got))
		}
	}
	// What could not be cut to fit passes; so does what is too large to look into.
	huge := contentHeader(0, flagHeaders, longString(strings.Repeat("t", maxGathered)))
	rest := contentHeader(0, flagHeaders, longString("t")+strings.Repeat("r", frameMax))
	s := newSocket(&stream{pieces: split(huge+rest, 50_000)}, 0)
	s.frameMax.Store(frameMax)
	if got, err := io.ReadAll(s); err != nil || string(got) != huge+rest {
		t.Errorf("read %d bytes (%v), want %d as they came", len(got), err, len(huge+rest))
	}
	if cap(s.in.part) > keptBuffer || cap(s.in.out) > maxGathered {
		t.Errorf("buffers of %d and %d bytes are kept", cap(s.in.part), cap(s.in.out))
	}
}

func TestSocketCork(t *testing.T) {
	t.Parallel()
	conn := &stream{}
	s := newSocket(conn, time.Second)
	s.cork()
	for _, c := range rewrites[:2] {
		if _, err := s.Write([]byte(c.broker)); err != nil {
			t.Fatal(err)
		}
	}
	s.cork()
	if len(conn.writes) != 0 {
		t.Fatalf("wrote %q under a cork", conn.writes)
	}
	body := strings.Repeat("b", corkBuffer-10)
	if _, err := s.Write([]byte(body)); err != nil || len(conn.writes) == 0 {
		t.Fatalf("%v, nothing written beyond the buffer", err)
	}
	if err := s.uncork(); err != nil || len(conn.written()) != len(rewrites[0].broker+rewrites[1].broker+body) {
		t.Fatalf("%v, %d bytes written", err, len(conn.written()))
	}
	n := len(conn.writes)
	if _, err := s.Write([]byte("held by the outer cork")); err != nil || len(conn.writes) != n {
		t.Fatalf("%v, %d writes under a cork", err, len(conn.writes)-n)
	}
	if err := s.uncork(); err != nil || len(conn.writes) != n+1 {
		t.Fatalf("%v, %d writes at its end", err, len(conn.writes)-n)
	}
	if err := s.uncork(); err != nil || len(conn.writes) != n+1 {
		t.Fatalf("%v, wrote without need", err)
	}
}

// Nobody knows how much of a frame a failed write has sent: nothing may follow it.
func TestSocketFailsForGood(t *testing.T) {
	t.Parallel()
	conn := &stream{err: errors.New("broken")}
	s := newSocket(conn, 0)
	if _, err := s.Write([]byte(greeting)); err == nil {
		t.Fatal("a failed write was no error")
	}
	conn.err = nil
	if _, err := s.Write([]byte(greeting)); err == nil || len(conn.writes) > 0 {
		t.Fatalf("%v, wrote %q after a failure", err, conn.writes)
	}
	s.cork()
	if err := s.uncork(); err == nil || len(conn.writes) > 0 {
		t.Fatalf("%v, wrote %q after a failure", err, conn.writes)
	}
}

// pair is a TCP connection whose far end does not read.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

// fill writes until the connection takes no more.
func fill(s *socket) error {
	block := make([]byte, 1<<20)
	if _, err := s.Write([]byte(greeting + string(frame(3, 1, "")[:3]) + "\xff\xff\xff\xff")); err != nil {
		return err
	}
	for {
		if _, err := s.Write(block); err != nil {
			return err
		}
	}
}

func TestSocketWriteTimeout(t *testing.T) {
	t.Parallel()
	near, _ := pair(t)
	if err := fill(newSocket(near, 50*time.Millisecond)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// How amqp091-go closes: a deadline set from another goroutine, before that of the write.
func TestSocketDeadlineEndsWrite(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(*socket) error{
		"SetDeadline":      func(s *socket) error { return s.SetDeadline(time.Now().Add(20 * time.Millisecond)) },
		"SetWriteDeadline": func(s *socket) error { return s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)) },
		"Close":            func(s *socket) error { return s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, _ := pair(t)
			s := newSocket(near, time.Hour)
			var wg sync.WaitGroup
			var filled error
			wg.Go(func() { filled = fill(s) })
			if err := set(s); err != nil {
				t.Error(err)
			}
			wg.Wait()
			if filled == nil {
				t.Error("the write did not end")
			}
		})
	}
}

// script is the broker's half of a connection, for what needs no broker: it answers the n-th write of the client with
// its n-th text, then plays what is fed to it.
type script struct {
	net.Conn
	answers []string
	said    chan string
	left    string
	closed  chan struct{}
	once    sync.Once
	sent    bytes.Buffer // by the client
	keep    bool
}

func newScript(answers ...string) *script {
	return &script{answers: answers, said: make(chan string, 16), closed: make(chan struct{})}
}

func (c *script) Read(p []byte) (int, error) {
	if c.left == "" {
		select {
		case c.left = <-c.said:
		case <-c.closed:
			return 0, io.EOF
		}
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *script) Write(p []byte) (int, error) {
	if len(c.answers) > 0 {
		if c.answers[0] != "" {
			c.said <- c.answers[0]
		}
		c.answers = c.answers[1:]
	} else if c.keep {
		c.sent.Write(p)
	}
	return len(p), nil
}

func (c *script) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *script) SetDeadline(time.Time) error      { return nil }
func (c *script) SetReadDeadline(time.Time) error  { return nil }
func (c *script) SetWriteDeadline(time.Time) error { return nil }

// login is what a broker says until a channel is open and in confirm mode, or is being consumed on.
func login(last string) []string {
	return []string{
		frame(frameMethod, 0, "\x00\x0a\x00\x0a\x00\x09"+longString("")+longString("PLAIN")+longString("en_US")),
		frame(frameMethod, 0, "\x00\x0a\x00\x1e\x07\xff\x00\x02\x00\x00\x00\x00"),
		"",
		frame(frameMethod, 0, "\x00\x0a\x00\x29\x00"),
		frame(frameMethod, 1, "\x00\x14\x00\x0b"+longString("")),
		frame(frameMethod, 1, last),
	}
}

// connected returns a channel of amqp091-go over the script, through a socket or without.
func connected(t testing.TB, c *script, throughSocket bool) *amqp.Channel {
	t.Helper()
	var under io.ReadWriteCloser = c
	if throughSocket {
		under = newSocket(c, time.Second)
	}
	conn, err := amqp.Open(under, amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{}}, Heartbeat: -1})
	if err != nil {
		t.Fatal(err)
	}
	closed := conn.NotifyClose(make(chan *amqp.Error, 1))
	t.Cleanup(func() {
		c.Close()
		coming(t, closed)
	})
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// deliverFrames is a message as the broker delivers it.
func deliverFrames(table, body string) string {
	return frame(frameMethod, 1, "\x00\x3c\x00\x3c"+shortString("ctag")+"\x00\x00\x00\x00\x00\x00\x00\x01\x00"+
		shortString("")+shortString("celery")) +
		contentHeader(len(body), 0xFE00, shortString("application/json")+shortString("utf-8")+longString(table)+"\x02\x00"+
			shortString("0a1b2c3d-aaaa-4000-8000-000000000001")+shortString("58b7f6c0-aaaa-3000-8000-000000000002")) +
		frame(3, 1, body)
}

func consume(t testing.TB, c *script, throughSocket bool) <-chan amqp.Delivery {
	t.Helper()
	deliveries, err := connected(t, c, throughSocket).Consume("q", "ctag", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return deliveries
}

// amqp091-go over a socket neither sees nor says a table, and Python's 64-bit integers pass in both directions.
func TestClientOverSocket(t *testing.T) {
	t.Parallel()
	c := newScript(login("\x00\x3c\x00\x15" + shortString("ctag"))...)
	deliveries := consume(t, c, true)
	deep := string(tableOfDepth(100))
	c.said <- deliverFrames(pythonTable, "b") + deliverFrames(deep, "c")
	for _, table := range []string{pythonTable, deep} {
		select {
		case d := <-deliveries:
			if raw, _ := rawTable(d.Headers); string(raw) != table || d.ReplyTo == "" || len(d.Body) != 1 {
				t.Errorf("received %+v", d)
			}
			if got := delivery(&d, "q"); got.Err != nil || len(got.Message.Headers.Extra) != 1 {
				t.Errorf("delivery is %+v with headers %+v", got, got.Message.Headers)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no delivery")
		}
	}

	c = newScript(login("\x00\x55\x00\x0b")...)
	ch := connected(t, c, true)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	c.keep = true
	m := protocol.Message{Body: []byte("b")}
	m.Headers.Extra = []protocol.Header{{Name: "n", Value: []byte("-5000000000")}}
	p, err := publishing(&m)
	if err != nil {
		t.Fatal(err)
	}
	if err := ch.PublishWithContext(context.Background(), "", "q", true, false, p); err != nil {
		t.Fatal(err)
	}
	want := contentHeader(1, flagHeaders|flagDeliveryMode|flagPriority,
		longString("\x01nL\xff\xff\xff\xfe\xd5\xfa\x0e\x00")+"\x02\x00")
	if got := c.sent.String(); !strings.Contains(got, want) {
		t.Errorf("sent %q, want %q in it", got, want)
	}
}

func tableOfDepth(n int) []byte {
	v := []byte("V")
	for range n {
		v = finishField(append(beginField(nil, 'A'), v...), 0)
	}
	return append([]byte("\x01x"), v...)
}
