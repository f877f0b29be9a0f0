package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// directExchange is Celery's exchange of worker_direct, and directSuffix ends the name of a node's own queue there.
const (
	directExchange = "C.dq2"
	directSuffix   = ".dq2"
)

// directQueue is the queue that belongs to one node: Celery's worker_direct. It stays when the node has gone.
func directQueue(node string) transport.Queue {
	return transport.Queue{Name: node + directSuffix, Exchange: directExchange, ExchangeType: "direct", RoutingKey: node}
}

// queues resolves the names to the queues to consume from.
func (c *Config) queues(client *task.Client) ([]transport.Queue, error) {
	out := make([]transport.Queue, 0, len(c.Queues)+1)
	for _, name := range c.Queues {
		if slices.Contains(c.ExcludeQueues, name) {
			continue
		}
		q, err := client.Queue(name)
		if err != nil {
			return nil, fmt.Errorf("worker config: Queues: %w", err)
		}
		out = append(out, q)
	}
	if c.Direct {
		out = append(out, directQueue(c.Hostname))
	}
	if len(out) == 0 {
		return nil, errors.New("worker config: ExcludeQueues: no queue is left to receive from")
	}
	return out, nil
}

// consuming are the queues a worker receives from.
type consuming struct {
	mu     sync.Mutex
	queues []transport.Queue
	change sync.Mutex // held while the consumer is told
}

// consumed are the queues the worker receives from, in their order.
func (w *Worker) consumed() []transport.Queue {
	w.sources.mu.Lock()
	defer w.sources.mu.Unlock()
	return slices.Clone(w.sources.queues)
}

// AddQueue begins to receive from one more queue while the worker runs, under the name that it has for the client. It is
// declared first. One that it receives from already is left alone. Celery's add_consumer.
func (w *Worker) AddQueue(ctx context.Context, name string) error {
	q, err := w.client.Queue(name)
	if err != nil {
		return fmt.Errorf("add queue: %w", err)
	}
	return w.addQueue(ctx, q)
}

func (w *Worker) addQueue(ctx context.Context, q transport.Queue) error {
	if err := w.receives(); err != nil {
		return fmt.Errorf("add queue %q: %w", q.Name, err)
	}
	w.sources.change.Lock()
	defer w.sources.change.Unlock()
	// Also one that is known: a Cancel that failed may have ended it nevertheless.
	if err := w.consumer.Add(ctx, q); err != nil {
		return fmt.Errorf("add queue %q: %w", q.Name, err)
	}
	w.sources.mu.Lock()
	known := slices.ContainsFunc(w.sources.queues, func(x transport.Queue) bool { return x.Name == q.Name })
	if !known {
		w.sources.queues = append(w.sources.queues, q)
	}
	w.sources.mu.Unlock()
	if known {
		return nil
	}
	w.log.Info("receiving from one more queue", "queue", q.Name)
	return nil
}

// CancelQueue stops receiving from a queue while the worker runs. What has been received from it is run nevertheless. A
// queue that it does not receive from is no error. After an error it is not known whether anything more is received; the
// queue is still listed, and can be cancelled or added again. Celery's cancel_consumer.
func (w *Worker) CancelQueue(ctx context.Context, name string) error {
	if err := w.receives(); err != nil {
		return fmt.Errorf("cancel queue %q: %w", name, err)
	}
	w.sources.change.Lock()
	defer w.sources.change.Unlock()
	if err := w.consumer.Cancel(ctx, name); err != nil {
		return fmt.Errorf("cancel queue %q: %w", name, err)
	}
	w.sources.mu.Lock()
	w.sources.queues = slices.DeleteFunc(w.sources.queues, func(q transport.Queue) bool { return q.Name == name })
	w.sources.mu.Unlock()
	w.log.Info("no longer receiving from a queue", "queue", name)
	return nil
}

// configured tells whether the client's configuration defines a queue.
func (w *Worker) configured(name string) bool {
	return slices.ContainsFunc(w.client.Config().Queues, func(q transport.Queue) bool { return q.Name == name })
}

// receives refuses what needs a worker that receives.
func (w *Worker) receives() error {
	select {
	case <-w.consuming:
		return nil
	default:
		return errors.New("the worker does not receive yet")
	}
}

// activeQueuesCommand answers with the queues as kombu describes them.
func activeQueuesCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	queues := w.consumed()
	out := make([]any, len(queues))
	for i, q := range queues {
		out[i] = describeQueue(q)
	}
	return out, nil
}

// describeQueue has the members of kombu's Queue.as_dict. What Gelery's queues have not is null there too.
func describeQueue(q transport.Queue) map[string]any {
	exchange, kind, key := q.Exchange, q.ExchangeType, q.RoutingKey
	if !q.Unbound {
		exchange, key = orElse(exchange, q.Name), orElse(key, q.Name)
	}
	alias := any(nil)
	if q.Broadcast {
		alias = q.Name
	}
	arguments := any(nil)
	if len(q.Arguments) > 0 {
		arguments = q.Arguments
	}
	bindings := []any{}
	for _, b := range q.Bindings {
		bindings = append(bindings, map[string]any{"exchange": describeExchange(b.Exchange, b.ExchangeType, false),
			"routing_key": b.RoutingKey, "arguments": b.Arguments, "unbind_arguments": nil})
	}
	return map[string]any{"name": q.Name, "exchange": describeExchange(exchange, kind, q.Transient), "routing_key": key,
		"queue_arguments": arguments, "binding_arguments": nil, "consumer_arguments": nil, "durable": !q.Transient,
		"exclusive": q.Exclusive, "auto_delete": q.AutoDelete, "no_ack": false, "alias": alias, "bindings": bindings,
		"no_declare": nil, "expires": nil, "message_ttl": nil, "max_length": nil, "max_length_bytes": nil, "max_priority": nil}
}

func describeExchange(name, kind string, transient bool) map[string]any {
	return map[string]any{"name": name, "type": orElse(kind, "direct"), "arguments": nil, "durable": !transient, "passive": false,
		"auto_delete": false, "delivery_mode": nil, "no_declare": false}
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
