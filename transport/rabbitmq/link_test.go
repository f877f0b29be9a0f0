//go:build unix

package rabbitmq

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// attempt opens a transport with a deadline and returns the error, and how long it took.
func attempt(t *testing.T, limit time.Duration, url string) (took time.Duration, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	tr, err := open(ctx, url, transport.Options{Logger: slog.New(slog.DiscardHandler), TransportOptions: map[string]any{"connect_timeout": 1.0}})
	took = time.Since(start)
	if err == nil {
		_ = tr.Close(context.WithoutCancel(ctx)) // the test fails anyhow
	}
	return took, err
}

// TestOpenErrors: what stands in the way of a connection is named; what no waiting will mend is said at once.
func TestOpenErrors(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	stranger := "user-without-rights-" + strings.ReplaceAll(s.Vhost[:6], " ", "")
	s.Manage("PUT", "/api/users/"+stranger, `{"password":"secret","tags":""}`)
	t.Cleanup(func() { s.Manage("DELETE", "/api/users/"+stranger, "") })
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(secure.Close)
	silent := serve(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
	leaving := serve(t, func(conn net.Conn) { play(conn, startOkSaid, func(io.Writer) {}) })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = gone.Close() // nobody listens there now
	for name, c := range map[string]struct {
		url    string
		denied bool // ErrDenied
		atOnce bool // before the deadline
		says   []string
	}{
		"wrong password":        {strings.Replace(s.URL, "guest:guest", "guest:wrong", 1), true, true, []string{"ACCESS_REFUSED"}},
		"missing virtual host":  {s.URL + "-missing", true, true, []string{"-missing"}},
		"no right to the vhost": {withUser(s.URL, stranger), true, true, []string{stranger, "vhost"}},
		"untrusted certificate": {"amqps://" + secure.Listener.Addr().String(), false, true, []string{"TLS", "certificate"}},
		"TLS on a plain port":   {"amqps://guest:guest@" + s.Addr, false, true, []string{"TLS"}},
		"HTTP on the port":      {"amqp://" + web.Listener.Addr().String(), false, false, []string{"no AMQP answer from " + web.Listener.Addr().String()}},
		"silence":               {"amqp://" + silent, false, false, []string{"no AMQP answer from " + silent}},
		"goodbye at the login":  {"amqp://" + leaving, false, false, []string{leaving + " ended the connection"}},
		"nobody":                {"amqp://" + gone.Addr().String(), false, false, []string{"connection refused", gone.Addr().String()}},
		"unknown host":          {"amqp://no-such-host.invalid", false, false, []string{"no-such-host.invalid"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			limit := 2 * time.Second // which it uses up
			if c.atOnce {
				limit = patience // which it does not
			}
			took, err := attempt(t, limit, c.url)
			t.Logf("after %v: %v", took.Round(time.Millisecond), err)
			if err == nil || errors.Is(err, transport.ErrDenied) != c.denied {
				t.Fatalf("%v; ErrDenied is expected: %v", err, c.denied)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("%v; expected it to say %q", err, text)
				}
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), ":wrong") {
				t.Errorf("%v shows the password", err)
			}
			if waited := took >= limit; waited == c.atOnce {
				t.Errorf("%v; it is expected at once: %v", err, c.atOnce)
			}
			if took > slack*limit {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestRights: what a user may not do is one error that names the user and what was asked for.
func TestRights(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	newRig(t, s.URL, nil).declare(transport.Queue{Name: "q"}, transport.Queue{Name: "x", Arguments: map[string]any{"x-max-length": 5}})
	publish := func(ctx context.Context, tr *rabbitTransport, exchange, key string) error {
		return tr.Publish(ctx, []transport.Publication{{Message: taskMessage("1"), Exchange: exchange, RoutingKey: key}})
	}
	consume := func(ctx context.Context, tr *rabbitTransport, name string) error {
		c, err := tr.Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: name}}})
		if err == nil {
			_ = c.Close(ctx)
		}
		return err
	}
	for name, c := range map[string]struct {
		configure, write, read string
		call                   func(ctx context.Context, tr *rabbitTransport) error
		want                   error
		says                   string
	}{
		"declare": {"^$", ".*", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return tr.Declare(ctx, transport.Queue{Name: "new"})
		}, transport.ErrDenied, `queue "new"`},
		"consume, may not declare": {"^$", ".*", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return consume(ctx, tr, "q")
		}, transport.ErrDenied, `queue "q"`},
		"consume, may not read": {".*", ".*", "^$", func(ctx context.Context, tr *rabbitTransport) error {
			return consume(ctx, tr, "q")
		}, transport.ErrDenied, "'q'"},
		"publish to a queue": {".*", "^$", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return publish(ctx, tr, "", "q")
		}, transport.ErrDenied, `routing key "q"`},
		"publish to an exchange": {".*", "^$", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return publish(ctx, tr, "q", "q")
		}, transport.ErrDenied, `exchange "q"`},
		"declare otherwise": {".*", ".*", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return tr.Declare(ctx, transport.Queue{Name: "x", Arguments: map[string]any{"x-max-length": 6}})
		}, transport.ErrMismatch, "x-max-length"},
		"consume as another type": {".*", ".*", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			_, err := tr.Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{{Name: "q", Arguments: map[string]any{"x-queue-type": "quorum"}}}})
			return err
		}, transport.ErrMismatch, "x-queue-type"},
		"no queue of this name": {".*", ".*", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return publish(ctx, tr, "", "missing")
		}, transport.ErrNoRoute, `routing key "missing"`},
		"no exchange of this name": {".*", ".*", ".*", func(ctx context.Context, tr *rabbitTransport) error {
			return publish(ctx, tr, "missing", "k")
		}, transport.ErrNoRoute, `exchange "missing"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			user := restricted(t, s, ".*", "")
			permit(s, user, c.configure, c.write, c.read)
			r := newRig(t, withUser(s.URL, user), nil)
			ctx := r.within(patience)
			err := c.call(ctx, r.tr)
			t.Log(err)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || ctx.Err() != nil {
				t.Errorf("%v; expected %v, %q", err, c.want, c.says)
			}
			if errors.Is(err, transport.ErrDenied) && !strings.Contains(err.Error(), user) {
				t.Errorf("%v; expected the user's name", err)
			}
		})
	}
}

// serve runs a server of one's own until the test ends, and returns its address. Connections are closed when f returns.
func serve(t *testing.T, f func(conn net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		conns = map[net.Conn]bool{}
		all   sync.WaitGroup
	)
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			all.Go(func() {
				f(conn)
				_ = conn.Close()
				mu.Lock()
				delete(conns, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}

// The methods a client calls, as class and method, until it has published.
const (
	protocolHeaderSaid = "header"
	startOkSaid        = "10.11"
	openSaid           = "10.40"
	channelOpenSaid    = "20.10"
	confirmSelectSaid  = "85.10"
	publishSaid        = "60.40"
)

// answers is what a broker answers to each of them.
var answers = map[string]string{
	protocolHeaderSaid: login("")[0], startOkSaid: login("")[1], openSaid: login("")[3], channelOpenSaid: login("")[4],
	confirmSelectSaid: frame(frameMethod, 1, "\x00\x55\x00\x0b"),
	"10.50":           frame(frameMethod, 0, "\x00\x0a\x00\x33"), // connection.close
}

// play is a broker that answers what a client says, but for one thing, where hostile takes over.
func play(conn net.Conn, at string, hostile func(w io.Writer)) {
	in := bufio.NewReader(conn)
	said := protocolHeaderSaid
	if _, err := io.ReadFull(in, make([]byte, protocolHeader)); err != nil {
		return
	}
	for {
		if said == at {
			hostile(conn)
			return
		}
		if _, err := io.WriteString(conn, answers[said]); err != nil {
			return
		}
		head := make([]byte, frameStart)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		if said = ""; head[0] == frameMethod {
			said = fmt.Sprintf("%d.%d", binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]))
		}
	}
}

// TestHostileBroker: whatever a server says, at every stage, is an error in time. Nothing panics, and nothing takes
// memory that the server only claims to fill.
func TestHostileBroker(t *testing.T) {
	t.Parallel()
	write := func(text string) func(w io.Writer) {
		return func(w io.Writer) { _, _ = io.WriteString(w, text) }
	}
	endless := func(first string) func(w io.Writer) {
		return func(w io.Writer) {
			junk := strings.Repeat("\x00\xff\xce\x01junk", 8<<10)
			for _, err := io.WriteString(w, first); err == nil; _, err = io.WriteString(w, junk) {
			}
		}
	}
	ack := func(tag uint64, multiple string) string {
		return frame(frameMethod, 1, "\x00\x3c\x00\x50"+string(binary.BigEndian.AppendUint64(nil, tag))+multiple)
	}
	huge := string([]byte{frameMethod, 0, 0, 0xff, 0xff, 0xff, 0xf0})
	hostile := map[string]func(w io.Writer){
		"goodbye":              write(""),
		"garbage":              write(strings.Repeat("\xde\xad\xbe\xef", 16<<10)),
		"endless garbage":      endless(""),
		"half a frame":         write(frame(frameMethod, 0, "\x00\x0a\x00\x0a")[:9]),
		"a frame without end":  endless(huge),
		"a frame of 4 GB":      write(huge),
		"an unknown frame":     write(frame(99, 0, "x")),
		"an unknown method":    write(frame(frameMethod, 0, "\x03\xe7\x03\xe7")),
		"an empty method":      write(frame(frameMethod, 0, "")),
		"a wrong frame end":    write(strings.TrimSuffix(answers[protocolHeaderSaid], "\xce") + "\x00"),
		"another version":      write("AMQP\x00\x01\x00\x00"),
		"a long table":         write(frame(frameMethod, 0, "\x00\x0a\x00\x0a\x00\x09\xff\xff\xff\xff")),
		"a deep table":         write(frame(frameMethod, 0, "\x00\x0a\x00\x0a\x00\x09"+longString(string(tableOfDepth(2000)))+longString("PLAIN")+longString("en_US"))),
		"no mechanism":         write(frame(frameMethod, 0, "\x00\x0a\x00\x0a\x00\x09"+longString("")+longString("KERBEROS")+longString("en_US"))),
		"a body nobody asked":  write(frame(3, 1, "body")),
		"a channel not open":   write(frame(frameMethod, 7, "\x00\x14\x00\x0b"+longString(""))),
		"tiny frames":          write(frame(frameMethod, 0, "\x00\x0a\x00\x1e\x00\x01\x00\x00\x00\x01\x00\x01")),
		"an early ack":         write(ack(1, "\x00")),
		"a close":              write(frame(frameMethod, 0, "\x00\x0a\x00\x32\x02\x14"+shortString("go away")+"\x00\x00\x00\x00")),
		"a delivery to nobody": write(deliverFrames("", "x")),
	}
	var all sync.WaitGroup
	for name, f := range hostile {
		for _, at := range []string{protocolHeaderSaid, startOkSaid, openSaid, channelOpenSaid, confirmSelectSaid, publishSaid} {
			addr := serve(t, func(conn net.Conn) { play(conn, at, f) })
			all.Go(func() {
				err := meet(t, addr)
				// The one lie that cannot be told from the truth: it was asked for a confirmation and gave one.
				if lie := at == publishSaid && name == "an early ack"; err == nil && !lie {
					t.Errorf("%s at %s: no error", name, at)
				}
			})
		}
	}
	all.Wait()
}

// meet opens a transport at a hostile broker, publishes if that succeeds, and closes.
func meet(t *testing.T, addr string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	start := time.Now()
	tr, err := open(ctx, "amqp://"+addr, transport.Options{Logger: slog.New(slog.DiscardHandler),
		TransportOptions: map[string]any{"connect_timeout": 0.2, "heartbeat": 1.0}})
	if err == nil {
		err = tr.Publish(ctx, []transport.Publication{{Message: taskMessage("1"), RoutingKey: "q"}})
		var publish *transport.PublishError
		if err != nil && !errors.As(err, &publish) {
			t.Errorf("publish: %v; expected a PublishError", err)
		}
		if e := tr.Close(context.WithoutCancel(ctx)); e != nil {
			t.Errorf("close: %v", e)
		}
	}
	if took := time.Since(start); took > patience {
		t.Errorf("took %v: %v", took, err)
	}
	return err
}

// TestHostileBrokerTakesNoMemory sends bytes without end in one frame of 4 GB.
func TestHostileBrokerTakesNoMemory(t *testing.T) {
	for _, at := range []string{protocolHeaderSaid, startOkSaid, openSaid} {
		addr := serve(t, func(conn net.Conn) {
			play(conn, at, func(w io.Writer) {
				piece := strings.Repeat("x", 1<<20)
				for _, err := io.WriteString(w, "\x03\x00\x01\xff\xff\xff\xf0"); err == nil; _, err = io.WriteString(w, piece) {
				}
			})
		})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := attempt(t, time.Second, "amqp://"+addr)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", at)
		}
		t.Logf("%s: %d KB, %v", at, (after.TotalAlloc-before.TotalAlloc)>>10, err)
		if grown := (after.TotalAlloc - before.TotalAlloc) >> 20; grown > 64 {
			t.Errorf("%s: %d MB were allocated for a frame of 4 GB: %v", at, grown, err)
		}
	}
}

// TestOpenIsPatient waits for a broker that comes up late.
func TestOpenIsPatient(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	proxy := testservice.NewProxy(t, s.Addr)
	proxy.Down()
	opened := make(chan error, 1)
	go func() {
		_, err := attempt(t, patience, strings.Replace(s.URL, s.Addr, proxy.Addr, 1))
		opened <- err
	}()
	select {
	case err := <-opened:
		t.Fatalf("ended without a broker: %v", err)
	case <-time.After(300 * time.Millisecond): // absence needs a time
	}
	proxy.Up()
	if err := coming(t, opened); err != nil {
		t.Error(err)
	}
}
