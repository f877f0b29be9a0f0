package task

import (
	"fmt"
	"maps"

	"github.com/gelery/gelery/transport"
)

const (
	queueType   = "x-queue-type"
	classic     = "classic"
	quorum      = "quorum"
	maxPriority = "x-max-priority"
	direct      = "direct"
)

// Broadcast is an entry of [Config.Queues] for tasks that every worker shall run: kombu.common.Broadcast. Each worker that
// serves it has a queue of its own, made when it begins and gone with it, bound to the fanout exchange of this name. Calls
// name it like any queue, task.Queue("name"). Workers that are away miss the call, and with none there it is dropped
// without an error, as in Celery.
func Broadcast(name string) transport.Queue {
	return transport.Queue{Name: name, Exchange: name, ExchangeType: "fanout", Broadcast: true}
}

// queues knows every queue by its name, as it is declared: Celery's app.amqp.queues.
type queues struct {
	known       map[string]transport.Queue
	byExchange  map[string][]transport.Queue
	create      bool            // a queue that is not known may be used
	missing     transport.Queue // what such a queue is like, but for its names
	maxPriority int             // 0: none
	delayed     bool            // the broker keeps delayed tasks, see delays
}

func newQueues(c *Config) *queues {
	s := &queues{
		known:       make(map[string]transport.Queue, len(c.Queues)+1),
		byExchange:  map[string][]transport.Queue{},
		create:      *c.CreateMissingQueues,
		missing:     transport.Queue{ExchangeType: c.CreateMissingQueueExchangeType, Arguments: ofType(c.CreateMissingQueueType)},
		maxPriority: c.QueueMaxPriority,
		delayed:     delays(c),
	}
	configured := c.Queues
	if len(configured) == 0 {
		configured = []transport.Queue{{Name: c.Queue, Arguments: ofType(c.QueueType)}}
	}
	for _, q := range configured {
		// As in Celery: the default exchange, and not one of the queue's own name.
		if q.Exchange == "" && !q.Unbound {
			q.Exchange, q.ExchangeType = c.Exchange, c.ExchangeType
		}
		if q.RoutingKey == "" && !q.Unbound {
			q.RoutingKey = c.RoutingKey
		}
		q = s.complete(q)
		s.known[q.Name] = q
		if q.Exchange != "" {
			s.byExchange[q.Exchange] = append(s.byExchange[q.Exchange], q)
		}
	}
	return s
}

// delays tells whether the broker is asked to keep delayed tasks. Celery asks it from the first quorum queue on, because
// the messages that a worker keeps itself use up its prefetch window there.
func delays(c *Config) bool {
	for _, q := range c.Queues {
		if q.Arguments[queueType] == quorum {
			return true
		}
	}
	return len(c.Queues) == 0 && c.QueueType == quorum || *c.CreateMissingQueues && c.CreateMissingQueueType == quorum
}

// ofType are the arguments of a queue of some type. Classic is what a queue is without any; to say so would be another
// declaration than Celery's.
func ofType(name string) map[string]any {
	if name != quorum {
		return nil
	}
	return map[string]any{queueType: name}
}

// complete fills in what is the same for all queues.
func (s *queues) complete(q transport.Queue) transport.Queue {
	if q.ExchangeType == "" && !q.Unbound {
		q.ExchangeType = direct
	}
	if _, has := q.Arguments[maxPriority]; !has && s.maxPriority > 0 {
		arguments := make(map[string]any, len(q.Arguments)+1) // q's own may be shared
		maps.Copy(arguments, q.Arguments)
		arguments[maxPriority] = int64(s.maxPriority)
		q.Arguments = arguments
	}
	q.Delayed = s.delayed
	return q
}

// find is the queue of a name. One that is not known has an exchange and a key of its own name.
func (s *queues) find(name string) (transport.Queue, error) {
	if q, ok := s.known[name]; ok {
		return q, nil
	}
	if !s.create {
		return transport.Queue{}, fmt.Errorf("%w: %q", ErrUnknownQueue, name)
	}
	q := s.missing
	q.Name, q.Exchange, q.RoutingKey = name, name, name
	return s.complete(q), nil
}

// Queue is the queue of a name with everything it is declared with: the exchange, key and arguments that the
// configuration gives it, as Celery would. It is [ErrUnknownQueue] for a queue that is not in the configuration when
// CreateMissingQueues is false.
func (c *Client) Queue(name string) (transport.Queue, error) { return c.router.queues.find(name) }

// validateQueues is the part of validate that is about queues.
func (c *Config) validateQueues() error {
	for _, f := range []struct{ name, value string }{
		{"ExchangeType", c.ExchangeType}, {"CreateMissingQueueExchangeType", c.CreateMissingQueueExchangeType},
	} {
		if !knownExchangeType(f.value) {
			return fmt.Errorf("config: %s: %q is not direct, topic or fanout", f.name, f.value)
		}
	}
	for _, f := range []struct{ name, value string }{
		{"QueueType", c.QueueType}, {"CreateMissingQueueType", c.CreateMissingQueueType},
	} {
		if f.value != classic && f.value != quorum {
			return fmt.Errorf("config: %s: %q is not classic or quorum", f.name, f.value)
		}
	}
	if c.QueueMaxPriority < 0 || c.QueueMaxPriority > 255 {
		return fmt.Errorf("config: QueueMaxPriority: %d is not from 0 to 255", c.QueueMaxPriority)
	}
	seen := map[string]bool{}
	for i, q := range c.Queues {
		switch {
		case q.Name == "":
			return fmt.Errorf("config: Queues[%d]: the queue has no name", i)
		case seen[q.Name]:
			return fmt.Errorf("config: Queues[%d]: the queue %q stands there twice", i, q.Name)
		case q.ExchangeType != "" && !knownExchangeType(q.ExchangeType):
			return fmt.Errorf("config: Queues[%d]: exchange type %q is not direct, topic or fanout", i, q.ExchangeType)
		case q.Exchange == "" && q.ExchangeType != "" && q.ExchangeType != c.ExchangeType:
			// Celery would take the default exchange, of another type, and not say so.
			return fmt.Errorf("config: Queues[%d]: the %s exchange of queue %q needs a name", i, q.ExchangeType, q.Name)
		}
		seen[q.Name] = true
	}
	return nil
}

func knownExchangeType(name string) bool {
	return name == direct || name == "topic" || name == "fanout"
}
