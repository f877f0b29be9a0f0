package transport

import (
	"context"
	"sync"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/protocol"
)

// lazy is a transport that connects when it is first used. It has none of the drivers' optional interfaces.
type lazy struct {
	url  string
	open func(ctx context.Context) (Transport, error)
	turn chan struct{} // capacity 1: who connects, or closes

	mu     sync.Mutex
	opened Transport // nil until then
	closed bool
}

func newLazy(url string, open func(ctx context.Context) (Transport, error)) *lazy {
	return &lazy{url: url, open: open, turn: make(chan struct{}, 1)}
}

// get returns the transport, and connects for as long as ctx lives if nobody has. Whoever comes meanwhile waits.
func (l *lazy) get(ctx context.Context) (Transport, error) {
	if t, err := l.state(); t != nil || err != nil {
		return t, err
	}
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-l.turn }()
	if t, err := l.state(); t != nil || err != nil {
		return t, err
	}
	t, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = t
	return t, nil
}

func (l *lazy) state() (Transport, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, ErrClosed
	}
	return l.opened, nil
}

func (l *lazy) Publish(ctx context.Context, batch []Publication) error {
	t, err := l.get(ctx)
	if err != nil {
		return &PublishError{URL: brokerurl.Redact(l.url), Err: err}
	}
	return t.Publish(ctx, batch)
}

func (l *lazy) Declare(ctx context.Context, q Queue) error {
	t, err := l.get(ctx)
	if err != nil {
		return err
	}
	return t.Declare(ctx, q)
}

func (l *lazy) Consume(ctx context.Context, o ConsumeOptions) (Consumer, error) {
	t, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return t.Consume(ctx, o)
}

func (l *lazy) Broadcast(ctx context.Context, exchange, routingKey string, m *protocol.Message) error {
	t, err := l.get(ctx)
	if err != nil {
		return err
	}
	return t.Broadcast(ctx, exchange, routingKey, m)
}

func (l *lazy) Subscribe(ctx context.Context, exchange, pattern string) (Subscription, error) {
	t, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return t.Subscribe(ctx, exchange, pattern)
}

// Close ends the connection if there is one, and waits for one that is being made.
func (l *lazy) Close(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-l.turn }()
	l.mu.Lock()
	t := l.opened
	l.opened, l.closed = nil, true
	l.mu.Unlock()
	if t == nil {
		return nil
	}
	return t.Close(ctx)
}
