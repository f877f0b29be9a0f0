// Package rabbitmq is the transport over RabbitMQ, AMQP 0-9-1: the same exchanges, queues, arguments and messages as
// Python's kombu, so that both share a broker. Connections always come back; publishes are confirmed.
//
// Import it for its side effect, the URL schemes amqp, amqps and pyamqp. A URL is
// amqp://user:password@host:5672/vhost; "amqp://h", "amqp://h/" and "amqp://h//" mean the virtual host "/", and several
// URLs joined by ";" are nodes to fall back to. amqps verifies the server's certificate unless ssl_cert_reqs=none says
// otherwise.
package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/transport"
)

func init() { transport.Register(open, "amqp", "amqps", "pyamqp") }

// rabbitTransport keeps two connections, because a resource alarm stops all that comes over a connection which has
// published: what is received can still be acknowledged then.
type rabbitTransport struct {
	options   *options
	log       *slog.Logger
	publishes *link
	publisher *lanes

	mu        sync.Mutex
	closed    bool
	consumes  *link           // nil until something is consumed
	exchanges known           // that exist, so that publishing to them closes no channel
	delays    known           // queues that delayed messages come back to
	aside     known           // quarantine queues
	delayed   map[string]bool // exchanges that delayed messages reach
}

var (
	_ transport.Transport     = (*rabbitTransport)(nil)
	_ transport.Inspector     = (*rabbitTransport)(nil)
	_ transport.BindingLister = (*rabbitTransport)(nil)
	_ transport.Pinger        = (*rabbitTransport)(nil)
)

// open connects. A broker that does not want us (password, virtual host, certificate) is an error at once; one that is
// not there is waited for until ctx is done.
func open(ctx context.Context, url string, o transport.Options) (transport.Transport, error) {
	opts, err := parse(url, o.TransportOptions)
	if err != nil {
		return nil, err
	}
	t := &rabbitTransport{options: opts, log: o.Logger, delayed: map[string]bool{}}
	t.publishes = newLink("publish", opts, o.Logger)
	if _, err := t.publishes.wait(ctx, true); err != nil {
		_ = t.publishes.close(context.WithoutCancel(ctx)) // nothing to say goodbye to
		return nil, fmt.Errorf("connect to %s: %w", opts.url, translate(err))
	}
	t.publisher = newLanes(t.publishes, t.exchanges.forget)
	return t, nil
}

// Close implements transport.Transport.
func (t *rabbitTransport) Close(ctx context.Context) error {
	t.mu.Lock()
	t.closed = true
	consumes := t.consumes
	t.mu.Unlock()
	t.publisher.stop()
	err := errors.Join(t.publishes.close(ctx), t.publisher.wait(ctx))
	if consumes != nil {
		err = errors.Join(err, consumes.close(ctx))
	}
	return err
}

// consuming returns the connection to consume on, opened at the first use.
func (t *rabbitTransport) consuming() (*link, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, transport.ErrClosed
	}
	if t.consumes == nil {
		t.consumes = newLink("consume", t.options, t.log)
	}
	return t.consumes, nil
}

// operating is the connection for questions and declarations: the one that never publishes, if it is there or an alarm
// keeps the broker from hearing the other.
func (t *rabbitTransport) operating() *link {
	blocked, _ := t.publishes.flow()
	t.mu.Lock()
	defer t.mu.Unlock()
	if blocked && t.consumes == nil && !t.closed {
		t.consumes = newLink("consume", t.options, t.log)
	}
	if t.consumes != nil {
		return t.consumes
	}
	return t.publishes
}

// onChannel runs f on a channel of its own.
func (t *rabbitTransport) onChannel(ctx context.Context, what string, f func(ch *amqp.Channel) error) error {
	if err := t.operating().onChannel(ctx, f); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Ping implements transport.Pinger: a channel is opened and closed. A connection that is lost is waited for.
func (t *rabbitTransport) Ping(ctx context.Context) error {
	return t.onChannel(ctx, "ping", func(*amqp.Channel) error { return nil })
}

// endpoint is the node that is connected to, or the first one of the list.
func (t *rabbitTransport) endpoint() endpoint {
	l := t.operating()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		return l.session.endpoint
	}
	return t.options.endpoints[0]
}

// serverProperties are what the broker said about itself; nil while there is no connection.
func (t *rabbitTransport) serverProperties() amqp.Table {
	l := t.operating()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		return l.session.Properties
	}
	return nil
}
