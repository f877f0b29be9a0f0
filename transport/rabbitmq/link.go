package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

// The pause before another attempt, after every node has been tried: it doubles from the first to the last, which is
// short enough to be back within seconds of the broker's return. Each is drawn between half and all of it, so that a
// fleet does not come back as one.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 2 * time.Second
)

// closeGrace is how long the broker may take to say goodbye.
const closeGrace = time.Second

// link is one connection that always comes back: the actor that dials, watches and dials again. Who needs the
// connection asks for the session; who loses it asks again.
type link struct {
	name    string // "publish" or "consume", as the broker's list of connections shows it
	options *options
	log     *slog.Logger

	cancel context.CancelFunc
	ended  chan struct{} // closed when run is over

	mu      sync.Mutex
	session *session      // nil while there is none
	err     error         // why the last attempt failed
	refused error         // err, if trying again will not help
	blocked string        // why the broker takes no messages now; "": it does
	changed chan struct{} // closed and replaced whenever one of the above changes
}

func newLink(name string, o *options, log *slog.Logger) *link {
	ctx, cancel := context.WithCancel(context.Background())
	l := &link{name: name, options: o, log: log, cancel: cancel, ended: make(chan struct{}), changed: make(chan struct{})}
	go l.run(ctx)
	return l
}

// run keeps the connection up until the link is closed. A node that was lost is tried again first, as kombu does: the
// others of a list may be there for the case that it is gone.
func (l *link) run(ctx context.Context) {
	defer close(l.ended)
	nodes := l.options.endpoints
	node, failures, pause := 0, 0, firstPause
	if l.options.shuffle {
		node = rand.IntN(len(nodes))
	}
	for ctx.Err() == nil {
		began := time.Now()
		s, err := l.dial(ctx, nodes[node])
		if err == nil {
			err = l.watch(ctx, s)
		} else {
			node = (node + 1) % len(nodes)
		}
		if err == nil {
			break // closed
		}
		l.set(func() { l.err, l.refused = err, refusal(err) })
		if s != nil && time.Since(began) > lastPause {
			failures, pause = 0, firstPause
			continue
		}
		if failures++; failures%len(nodes) != 0 {
			continue
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
		}
		pause = min(2*pause, lastPause)
	}
	l.set(func() { l.err, l.refused = transport.ErrClosed, transport.ErrClosed })
}

func (l *link) set(change func()) {
	l.mu.Lock()
	change()
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
}

// watch makes a session known and waits for its end. It returns the reason, nil when the link was closed.
func (l *link) watch(ctx context.Context, s *session) error {
	closed := s.NotifyClose(make(chan *amqp.Error, 1))
	blocked := s.NotifyBlocked(make(chan amqp.Blocking, 8))
	l.set(func() { l.session, l.err, l.refused, l.blocked = s, nil, nil, "" })
	defer func() {
		close(s.gone)
		l.set(func() { l.session, l.blocked = nil, "" })
	}()
	for {
		select {
		case b, ok := <-blocked:
			if !ok {
				blocked = nil // the reason comes by closed
				continue
			}
			if b.Active {
				l.log.Warn("RabbitMQ takes no messages for now", "reason", b.Reason, "connection", l.name)
				l.set(func() { l.blocked = firstOf(b.Reason, "resource alarm") })
			} else {
				l.log.Info("RabbitMQ takes messages again", "connection", l.name)
				l.set(func() { l.blocked = "" })
			}
		case e := <-closed:
			err := error(e)
			if e == nil {
				err = amqp.ErrClosed
			}
			l.log.Warn("connection to RabbitMQ lost", "connection", l.name, "node", s.endpoint.address(), "error", err)
			return err
		case <-ctx.Done():
			_ = s.CloseDeadline(time.Now().Add(closeGrace)) // it is over either way
			return nil
		}
	}
}

// dial connects to one node.
func (l *link) dial(ctx context.Context, e endpoint) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, l.options.connectTimeout)
	defer cancel()
	dialer := net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", e.address())
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // the handshakes know no context
	watched := &watchedConn{Conn: conn}
	under := net.Conn(watched)
	if e.tls != nil {
		secured := tls.Client(watched, e.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("TLS with %s: %w", e.address(), err)
		}
		under = secured
	}
	deadline, _ := ctx.Deadline()
	_ = under.SetDeadline(deadline) // fails only on a closed connection; amqp091-go clears it after the handshake
	s := &session{socket: newSocket(under, l.options.writeTimeout), endpoint: e, gone: make(chan struct{}),
		calls: make(chan struct{}, maxCalls)}
	properties := amqp.NewConnectionProperties()
	properties["product"] = "Gelery"
	properties.SetClientConnectionName("gelery " + l.name)
	config := amqp.Config{Vhost: e.vhost, Heartbeat: l.options.heartbeat, Properties: properties, Locale: "en_US"}
	if l.options.loginMethod == "EXTERNAL" {
		config.SASL = []amqp.Authentication{&amqp.ExternalAuth{}}
	} else {
		config.SASL = []amqp.Authentication{&amqp.PlainAuth{Username: e.user, Password: e.password}}
	}
	s.Connection, err = amqp.Open(s.socket, config)
	if err != nil {
		_ = conn.Close()
		said, ok := errors.AsType[*amqp.Error](err)
		switch {
		case (!ok || said.Code == amqp.FrameError) && !time.Now().Before(deadline): // so it calls a read that took too long
			err = fmt.Errorf("no AMQP answer from %s within %v", e.address(), l.options.connectTimeout)
		case said == amqp.ErrCredentials, said == amqp.ErrVhost: // its guesses; RabbitMQ itself says why
			err = fmt.Errorf("%s ended the connection during the handshake, without a reason", e.address())
		}
		return nil, err
	}
	watched.patience.Store(int64(2 * s.Config.Heartbeat))
	return s, nil
}

// watchedConn ends a connection on which nothing was heard for two heartbeats; amqp091-go would wait for three.
type watchedConn struct {
	net.Conn
	patience atomic.Int64
}

func (c *watchedConn) SetReadDeadline(t time.Time) error {
	if p := time.Duration(c.patience.Load()); p > 0 && !t.IsZero() {
		if mine := time.Now().Add(p); mine.Before(t) {
			t = mine
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// await returns the session, and waits for one until ctx is done.
func (l *link) await(ctx context.Context) (*session, error) { return l.wait(ctx, false) }

// wait is await; impatient, it gives up when the broker does not want us: a wrong password stays wrong.
func (l *link) wait(ctx context.Context, impatient bool) (*session, error) {
	for {
		l.mu.Lock()
		s, err, refused, changed := l.session, l.err, l.refused, l.changed
		l.mu.Unlock()
		switch {
		case s != nil:
			return s, nil
		case errors.Is(refused, transport.ErrClosed), impatient && refused != nil:
			return nil, refused
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if err != nil {
				return nil, fmt.Errorf("not connected (%w): %w", err, context.Cause(ctx))
			}
			return nil, context.Cause(ctx)
		}
	}
}

// state is what a call says that did not get through before its context ended: why the broker takes nothing, or why
// there is no connection. nil if all looks well.
func (l *link) state() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.blocked != "":
		return fmt.Errorf("%w: %s", transport.ErrBrokerFull, l.blocked)
	case l.session == nil && l.err != nil:
		return fmt.Errorf("not connected: %w", l.err)
	}
	return nil
}

// flow tells whether the broker takes messages now, and when that may have changed.
func (l *link) flow() (blocked bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.blocked != "", l.changed
}

// close ends the connection and waits for its end, at most until ctx is done.
func (l *link) close(ctx context.Context) error {
	l.cancel()
	select {
	case <-l.ended:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// onChannel runs f on a channel of its own, because an error closes a channel with all that is on it. What f is told
// no to comes back translated. A lost connection is tried again.
func (l *link) onChannel(ctx context.Context, f func(ch *amqp.Channel) error) error {
	for {
		s, err := l.await(ctx)
		if err != nil {
			return err
		}
		err = s.call(ctx, func() error {
			ch, err := s.Channel()
			if err != nil {
				return err
			}
			if err := f(ch); err != nil {
				_ = ch.Close() // the error may have come from something else than the broker
				return err
			}
			return ch.Close()
		})
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			if state := l.state(); state != nil {
				return fmt.Errorf("%w: %w", state, context.Cause(ctx))
			}
			return translate(err)
		case !lost(err):
			return translate(err)
		}
		select {
		case <-s.gone:
		case <-time.After(lastPause): // the channel alone was lost
		case <-ctx.Done():
		}
	}
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
