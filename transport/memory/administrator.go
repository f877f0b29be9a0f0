package memory

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/transport"
)

var _ transport.Administrator = memoryTransport{}

// DeclareExchange implements transport.Administrator. An exchange is its bindings: there is nothing to declare.
func (t memoryTransport) DeclareExchange(_ context.Context, x transport.Exchange) error {
	return checkType(x.Name, x.Type)
}

func checkType(name, kind string) error {
	switch kind {
	case "", "direct", "topic", "fanout":
		return nil
	}
	return fmt.Errorf("%q: exchange type %q is not supported; use direct, topic or fanout", name, kind)
}

// DeleteExchange implements transport.Administrator.
func (t memoryTransport) DeleteExchange(_ context.Context, name string, ifUnused bool) error {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	if n := len(t.b.bindings[name]); ifUnused && n > 0 {
		return fmt.Errorf("exchange %q is in use and was not deleted: it has %d bindings", name, n)
	}
	delete(t.b.bindings, name)
	return nil
}

// Bind implements transport.Administrator.
func (t memoryTransport) Bind(_ context.Context, queue string, b transport.Binding) error {
	if err := checkType(queue, b.ExchangeType); err != nil {
		return err
	}
	if b.ExchangeType == "" {
		b.ExchangeType = "direct"
	}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	if t.b.bindings[b.Exchange] == nil {
		t.b.bindings[b.Exchange] = map[binding]bool{}
	}
	t.b.bindings[b.Exchange][binding{queue, b.ExchangeType, b.RoutingKey}] = true
	return nil
}

// Unbind implements transport.Administrator, whatever the exchange's type.
func (t memoryTransport) Unbind(_ context.Context, queue string, b transport.Binding) error {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	for bound := range t.b.bindings[b.Exchange] {
		if bound.queue == queue && bound.key == b.RoutingKey {
			delete(t.b.bindings[b.Exchange], bound)
		}
	}
	return nil
}

// DeleteQueue implements transport.Administrator. Consumers are not known, so ifUnused is an error.
func (t memoryTransport) DeleteQueue(_ context.Context, name string, ifUnused, ifEmpty bool) (int64, error) {
	if ifUnused {
		return 0, errors.New("the memory broker cannot tell whether a queue is unused")
	}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	q := t.b.queues[name]
	if q == nil {
		return 0, nil
	}
	n := len(q.waiting) + len(q.delayed)
	if ifEmpty && n > 0 {
		return 0, fmt.Errorf("queue %q is not empty and was not deleted: %d messages wait in it", name, n)
	}
	for _, bound := range t.b.bindings {
		for b := range bound {
			if b.queue == name {
				delete(bound, b)
			}
		}
	}
	q.waiting, q.delayed = nil, nil
	if q.unacked == 0 && len(q.quarantine) == 0 {
		delete(t.b.queues, name)
	}
	return int64(n), nil
}
