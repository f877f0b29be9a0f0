// Package memory is a broker inside the process, for tests and for programs that produce and consume alone. All
// connections to memory://name share the broker of that name; it is gone with the process. Messages pass through their
// Redis envelope, so that what cannot travel elsewhere does not travel here either.
//
// Import it for its side effect, the URL scheme memory.
package memory

import (
	"context"
	"errors"
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
	kept        map[string]map[string]time.Time // the Keeper's sets
	changed     chan struct{}                   // closed and replaced when a message arrives, or a consumer's queues change
}

type queue struct {
	waiting    []item    // sorted: lower priority number first, as on Redis, then order of arrival
	delayed    []delayed // by eta
	unacked    int64
	quarantine []transport.QuarantinedMessage
}

type binding struct{ queue, kind, key string }

type item struct {
	raw      []byte
	priority int
}

type memoryTransport struct{ b *broker }

var (
	_ transport.Inspector     = memoryTransport{}
	_ transport.BindingLister = memoryTransport{}
	_ transport.Pinger        = memoryTransport{}
)

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
			subscribers: map[*subscription]bool{}, kept: map[string]map[string]time.Time{}, changed: make(chan struct{})}
		brokers[name] = b
	}
	return memoryTransport{b}, nil
}

// Ping implements transport.Pinger.
func (memoryTransport) Ping(context.Context) error { return nil }

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
	b.wake()
}

// wake lets all Receives that wait look again. The caller holds mu.
func (b *broker) wake() {
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
	targets := make([][]string, len(batch))
	for i, p := range batch { // all of them before anything is put anywhere
		var err error
		if targets[i], err = t.b.route(p); err != nil {
			return &transport.PublishError{URL: "memory://", Err: err}
		}
	}
	for i, p := range batch {
		m := *p.Message
		m.Properties.DeliveryInfo = protocol.DeliveryInfo{Exchange: p.Exchange, RoutingKey: p.RoutingKey}
		if protocol.IsPidboxReplyExchange(p.Exchange) {
			t.b.tell(p.Exchange, p.RoutingKey, protocol.AppendEnvelope(nil, &m))
		}
		for _, q := range targets[i] {
			m.Properties.DeliveryTag = protocol.NewID()
			t.b.put(q, item{protocol.AppendEnvelope(nil, &m), min(max(m.Properties.Priority, 0), 9)}, false)
		}
	}
	return nil
}

// route returns the queues a publication reaches. The caller holds mu.
func (b *broker) route(p transport.Publication) ([]string, error) {
	if p.Exchange == "" {
		if p.RoutingKey == "" {
			return nil, errors.New("routing key is empty: no queue to publish to")
		}
		return []string{p.RoutingKey}, nil
	}
	queues := b.match(p.Exchange, p.RoutingKey)
	if len(queues) == 0 && !p.Optional {
		return nil, fmt.Errorf("exchange %q, routing key %q: %w", p.Exchange, p.RoutingKey, transport.ErrNoRoute)
	}
	return queues, nil
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
		return errors.New("queue name is empty")
	}
	if q.Broadcast {
		return fmt.Errorf("queue %q: broadcast queues are not supported in memory; use RabbitMQ", q.Name)
	}
	bindings := q.Bindings
	if !q.Unbound {
		own := transport.Binding{Exchange: q.Exchange, ExchangeType: q.ExchangeType, RoutingKey: q.RoutingKey}
		if own.Exchange == "" {
			own.Exchange = q.Name
		}
		if own.RoutingKey == "" && own.ExchangeType != "fanout" {
			own.RoutingKey = q.Name
		}
		bindings = append([]transport.Binding{own}, bindings...)
	}
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	t.b.queue(q.Name)
	for _, b := range bindings {
		if err := t.b.bind(q.Name, b); err != nil {
			return err
		}
	}
	return nil
}

// bind ties a queue to an exchange. The caller holds mu.
func (b *broker) bind(queue string, x transport.Binding) error {
	kind := x.ExchangeType
	switch kind {
	case "":
		kind = "direct"
	case "direct", "topic", "fanout":
	default:
		return fmt.Errorf("queue %q: exchange type %q is not supported; use direct, topic or fanout", queue, kind)
	}
	if b.bindings[x.Exchange] == nil {
		b.bindings[x.Exchange] = map[binding]bool{}
	}
	b.bindings[x.Exchange][binding{queue, kind, x.RoutingKey}] = true
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
		} else {
			t.b.moveDue(name, time.Now())
		}
		d := transport.Depth{Queue: name, Messages: int64(len(q.waiting)), ByPriority: map[int]int64{}, Unacked: q.unacked,
			Delayed: int64(len(q.delayed)), Quarantined: int64(len(q.quarantine))}
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

// Bindings implements transport.BindingLister.
func (t memoryTransport) Bindings(context.Context) ([]transport.BoundQueue, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	var all []transport.BoundQueue
	for exchange, bindings := range t.b.bindings {
		for b := range bindings {
			all = append(all, transport.BoundQueue{Queue: b.queue, Exchange: exchange, RoutingKey: b.key})
		}
	}
	return transport.SortBindings(all), nil
}

// Purge implements transport.Inspector.
func (t memoryTransport) Purge(_ context.Context, name string) (int64, error) {
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	q := t.b.queue(name)
	n := len(q.waiting) + len(q.delayed)
	q.waiting, q.delayed = nil, nil
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
