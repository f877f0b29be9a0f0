// Package memory is a broker inside the process, for tests and for programs that produce and consume alone. All
// connections to memory://name share the broker of that name; it is gone with the process. Messages pass through their
// Redis envelope, so that what cannot travel elsewhere does not travel here either.
//
// Import it for its side effect, the URL scheme memory.
package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

func init() { transport.Register(open, "memory") }

var (
	brokersMu sync.Mutex
	brokers   = map[string]*broker{}
)

// broker is the shared state of all connections to one name.
type broker struct {
	mu          sync.Mutex
	queues      map[string]*queue
	bindings    map[string]map[binding]bool // by exchange
	subscribers map[*subscription]bool
	changed     chan struct{} // closed and replaced when a message arrives
}

type queue struct {
	waiting    []item // sorted: lower priority number first, as on Redis, then order of arrival
	unacked    int64
	quarantine []transport.QuarantinedMessage
}

type binding struct{ queue, kind, key string }

type item struct {
	raw      []byte
	priority int
}

type memoryTransport struct{ b *broker }

var _ transport.Inspector = memoryTransport{}

func open(_ context.Context, url string, o transport.Options) (transport.Transport, error) {
	for name := range o.TransportOptions {
		return nil, fmt.Errorf("transport option %q is unknown to the memory transport, which has none", name)
	}
	_, name, _ := strings.Cut(url, "://")
	brokersMu.Lock()
	defer brokersMu.Unlock()
	b := brokers[name]
	if b == nil {
		b = &broker{queues: map[string]*queue{}, bindings: map[string]map[binding]bool{},
			subscribers: map[*subscription]bool{}, changed: make(chan struct{})}
		brokers[name] = b
	}
	return memoryTransport{b}, nil
}

// queue returns the queue, made if need be. The caller holds mu.
func (b *broker) queue(name string) *queue {
	q := b.queues[name]
	if q == nil {
		q = &queue{}
		b.queues[name] = q
	}
	return q
}

// put adds a message at the front or the back of its priority. The caller holds mu.
func (b *broker) put(name string, it item, front bool) {
	q := b.queue(name)
	at, _ := slices.BinarySearchFunc(q.waiting, it, func(e, it item) int {
		if front && e.priority >= it.priority || !front && e.priority > it.priority {
			return 1
		}
		return -1
	})
	q.waiting = slices.Insert(q.waiting, at, it)
	close(b.changed)
	b.changed = make(chan struct{})
}

// Publish implements transport.Transport.
func (t memoryTransport) Publish(ctx context.Context, batch []transport.Publication) error {
	if err := ctx.Err(); err != nil {
		return &transport.PublishError{URL: "memory://", Err: context.Cause(ctx)}
	}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	for i, p := range batch {
		queues := []string{p.RoutingKey}
		if p.Exchange != "" {
			if queues = t.b.match(p.Exchange, p.RoutingKey); len(queues) == 0 {
				return &transport.PublishError{URL: "memory://", InDoubt: i > 0,
					Err: fmt.Errorf("exchange %q, routing key %q: %w", p.Exchange, p.RoutingKey, transport.ErrNoRoute)}
			}
		} else if p.RoutingKey == "" {
			return &transport.PublishError{URL: "memory://", InDoubt: i > 0, Err: fmt.Errorf("routing key is empty")}
		}
		m := *p.Message
		m.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: p.Exchange, RoutingKey: p.RoutingKey}
		for _, q := range queues {
			m.Properties.DeliveryTag = protocol.NewID()
			t.b.put(q, item{protocol.AppendEnvelope(nil, &m), min(max(m.Properties.Priority, 0), 9)}, false)
		}
	}
	return nil
}

// match returns the queues bound to an exchange for a key. The caller holds mu.
func (b *broker) match(exchange, key string) []string {
	var names []string
	for q := range b.bindings[exchange] {
		if q.key == key || q.kind == "topic" && topicMatches(strings.Split(q.key, "."), strings.Split(key, ".")) {
			names = append(names, q.queue)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// topicMatches applies AMQP's rule: "*" is one word, "#" any number of words.
func topicMatches(pattern, key []string) bool {
	for i, w := range pattern {
		if w == "#" {
			for skip := 0; skip <= len(key)-i; skip++ {
				if topicMatches(pattern[i+1:], key[i+skip:]) {
					return true
				}
			}
			return false
		}
		if i >= len(key) || w != "*" && w != key[i] {
			return false
		}
	}
	return len(pattern) == len(key)
}

// Declare implements transport.Transport.
func (t memoryTransport) Declare(_ context.Context, q transport.Queue) error {
	if q.Name == "" {
		return fmt.Errorf("queue name is empty")
	}
	b := q
	if b.Exchange == "" {
		b.Exchange = b.Name
	}
	switch b.ExchangeType {
	case "":
		b.ExchangeType = "direct"
	case "direct", "topic", "fanout":
	default:
		return fmt.Errorf("queue %q: exchange type %q is not supported; use direct, topic or fanout", q.Name, b.ExchangeType)
	}
	if b.RoutingKey == "" && b.ExchangeType != "fanout" {
		b.RoutingKey = b.Name
	}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	t.b.queue(b.Name)
	if t.b.bindings[b.Exchange] == nil {
		t.b.bindings[b.Exchange] = map[binding]bool{}
	}
	t.b.bindings[b.Exchange][binding{b.Name, b.ExchangeType, b.RoutingKey}] = true
	return nil
}

// Close implements transport.Transport.
func (memoryTransport) Close(context.Context) error { return nil }

// Depths implements transport.Inspector.
func (t memoryTransport) Depths(_ context.Context, queues []string) ([]transport.Depth, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	out := make([]transport.Depth, len(queues))
	for i, name := range queues {
		q := t.b.queues[name]
		if q == nil {
			q = &queue{}
		}
		d := transport.Depth{Queue: name, Messages: int64(len(q.waiting)), ByPriority: map[int]int64{}, Unacked: q.unacked, Quarantined: int64(len(q.quarantine))}
		for _, it := range q.waiting {
			d.ByPriority[it.priority]++
		}
		out[i] = d
	}
	return out, nil
}

// Queues implements transport.Inspector.
func (t memoryTransport) Queues(context.Context) ([]string, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	return slices.Sorted(maps.Keys(t.b.queues)), nil
}

// Purge implements transport.Inspector.
func (t memoryTransport) Purge(_ context.Context, name string) (int64, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	q := t.b.queue(name)
	n := len(q.waiting)
	q.waiting = nil
	return int64(n), nil
}

// Quarantined implements transport.Inspector.
func (t memoryTransport) Quarantined(_ context.Context, name string, limit int) ([]transport.QuarantinedMessage, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	all := slices.Clone(t.b.queue(name).quarantine)
	slices.Reverse(all)
	return all[:min(max(limit, 0), len(all))], nil
}

// PurgeQuarantine implements transport.Inspector.
func (t memoryTransport) PurgeQuarantine(_ context.Context, name string) (int64, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	q := t.b.queue(name)
	n := len(q.quarantine)
	q.quarantine = nil
	return int64(n), nil
}

// setAside quarantines a message. The caller holds mu.
func (b *broker) setAside(name, reason string, raw []byte) {
	q := b.queue(name)
	q.quarantine = append(q.quarantine, transport.QuarantinedMessage{Time: time.Now(), Queue: name, Reason: reason, Raw: raw})
}
