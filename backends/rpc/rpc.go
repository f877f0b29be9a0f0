// Package rpc is Celery's rpc:// backend: nothing is stored, a worker sends each result as a message to the queue that
// the task's message named as its reply_to, and the client that waits there keeps what it hears in its memory. Importing
// it makes rpc:// known to backends.Open. It travels over the broker's own connection and works on every transport.
//
// What follows from that, as with Celery:
//
//   - Only the client that sent a task hears of it. To any other, and to one that was started anew, it is PENDING.
//   - A task whose message names no reply_to has no result; one whose queue is gone has none either, and no error.
//   - Who may publish a task decides where its result is sent: to any queue of the broker, by its reply_to.
//   - On Redis a reply queue is a list. What is sent to a client that has ended stays there.
//
// And where it differs: the reply queue is durable and outlives its connection, so that a reconnect loses nothing. The
// broker removes it after 30 minutes without its client.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

func init() { backends.Register(Open, "rpc") }

// ErrNoBroker is what Open returns without Options.Broker: replies travel over the broker.
var ErrNoBroker = errors.New("rpc:// sends results over the broker, and there is none; give one, " +
	"or use another result backend")

const (
	defaultExpires = 24 * time.Hour
	// unusedQueue is how long the broker keeps a reply queue that nobody consumes from: longer than any reconnect takes.
	unusedQueue = 30 * time.Minute
	// closeTimeout bounds the farewell to the broker.
	closeTimeout = 5 * time.Second
)

// Backend is both ends of rpc://: a worker's, which only ever calls Store, and a client's, which has a reply queue from
// its first Expect to Close.
type Backend struct {
	broker     transport.Transport
	serializer serialization.Serializer
	persistent bool
	log        *slog.Logger
	results    *results

	queue    transport.Queue // the reply queue
	starting chan struct{}   // held by who begins to consume
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	running  sync.WaitGroup // listen

	mu       sync.Mutex
	closed   bool
	consumer transport.Consumer   // nil before the first Expect
	refusing map[string]time.Time // reply queues that have refused a reply, and when
}

var _ backends.Replier = (*Backend)(nil)

// Open makes a backend over Options.Broker; the URL says nothing but rpc://. Options.Expires is how long a result that
// has arrived is kept here. Options.Persistent sends results as persistent messages. There are no transport options. It
// does not talk to the broker.
func Open(_ context.Context, url string, o backends.Options) (backends.Backend, error) {
	if _, err := brokerurl.Parse(url); err != nil {
		return nil, fmt.Errorf("result backend: %w", err)
	}
	for name := range o.TransportOptions {
		return nil, fmt.Errorf("transport option %q is unknown for rpc, which has none: it uses the broker's connection", name)
	}
	if o.Broker == nil {
		return nil, ErrNoBroker
	}
	codec, err := backends.NewCodec(o)
	if err != nil {
		return nil, err
	}
	d, err := newDecoder(o.Accept, codec.Serializer)
	if err != nil {
		return nil, err
	}
	expires := o.Expires
	if expires == 0 {
		expires = defaultExpires
	}
	b := &Backend{
		broker:     o.Broker,
		serializer: codec.Serializer,
		persistent: o.Persistent,
		log:        o.Logger,
		results:    newResults(d, expires, o.Logger),
		queue: transport.Queue{Name: protocol.NewID(), Unbound: true,
			Arguments: map[string]any{"x-expires": unusedQueue.Milliseconds()}},
		starting: make(chan struct{}, 1),
		refusing: map[string]time.Time{},
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b, nil
}

// Expect is backends.Replier's. The first call declares the reply queue and begins to consume from it.
func (b *Backend) Expect(ctx context.Context, ids ...string) (replyTo string, err error) {
	if err := b.start(ctx); err != nil {
		return "", err
	}
	return b.queue.Name, b.results.expect(ids)
}

// start begins to consume unless that is done already.
func (b *Backend) start(ctx context.Context) error {
	if started, err := b.started(); started || err != nil {
		return err
	}
	select {
	case b.starting <- struct{}{}:
		defer func() { <-b.starting }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if started, err := b.started(); started || err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)() // Close does not wait for a broker that is away
	consumer, err := b.broker.Consume(ctx, transport.ConsumeOptions{Queues: []transport.Queue{b.queue}, Prefetch: receiveMost})
	if err != nil {
		return fmt.Errorf("reply queue %q: %w", b.queue.Name, err)
	}
	b.mu.Lock()
	closed := b.closed
	if !closed {
		b.consumer = consumer
		b.running.Go(func() { b.listen(consumer) })
	}
	b.mu.Unlock()
	if closed {
		return errors.Join(backends.ErrClosed, b.leave(consumer))
	}
	return nil
}

// started reports whether the reply queue is consumed from; the error is that the backend is closed.
func (b *Backend) started() (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false, backends.ErrClosed
	}
	return b.consumer != nil, nil
}

// Get returns what has been heard of a task, or PENDING: also for one that this backend does not expect.
func (b *Backend) Get(_ context.Context, id string) (*protocol.ResultMeta, error) {
	if _, err := b.started(); err != nil {
		return nil, err
	}
	return b.results.get(id)
}

// GetMany is Get for several tasks. Nothing is asked of the broker.
func (b *Backend) GetMany(ctx context.Context, ids ...string) ([]*protocol.ResultMeta, error) {
	metas := make([]*protocol.ResultMeta, len(ids))
	for i, id := range ids {
		var err error
		if metas[i], err = b.Get(ctx, id); err != nil {
			return nil, err
		}
	}
	return metas, nil
}

// Watch is backends.Backend's. The task must have been announced to Expect, which sending it does; else the Watch ends
// with backends.ErrUnexpected, instead of waiting for what never comes. Of the tasks whose final state a Watch has
// yielded, the latest 10,000 can be watched again.
func (b *Backend) Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		in, ids := backends.NewInbox(ids)
		_, err := b.started()
		if err == nil {
			err = b.results.join(in, ids)
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer b.results.leave(in, false, ids...)
		in.Run(ctx, b.results.decoder, func(id string) { b.results.leave(in, true, id) }, yield)
	}
}

// Forget drops what is known of the tasks. A result that comes later is kept nevertheless.
func (b *Backend) Forget(_ context.Context, ids ...string) error {
	b.results.forget(ids)
	return nil
}

// Close removes the reply queue, where the transport can, and what has been heard. Watches still running end with an
// error. The broker's connection stays open.
func (b *Backend) Close() error {
	b.mu.Lock()
	consumer, again := b.consumer, b.closed
	b.closed = true
	b.mu.Unlock()
	if again {
		return nil
	}
	b.stop()
	b.results.close(backends.ErrClosed)
	b.running.Wait()
	if consumer == nil {
		return nil
	}
	return b.leave(consumer)
}

// leave ends consuming and removes the queue, which nobody needs any more.
func (b *Backend) leave(consumer transport.Consumer) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := consumer.Close(ctx)
	if a, ok := b.broker.(transport.Administrator); ok {
		if _, err := a.DeleteQueue(ctx, b.queue.Name, false, false); err != nil {
			b.log.Debug("reply queue was not removed; the broker will", "queue", b.queue.Name, "after", unusedQueue, "error", err)
		}
	}
	return err
}
