package settings

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/internal/spelling"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

// fields read the keys of a map, each by a function of its own.
type fields map[string]func(*yaml.Node) error

// read reads a map. A key nobody knows is an error with what was meant perhaps.
func (f fields) read(n *yaml.Node) error {
	return eachKey(n, func(key string, value *yaml.Node) error {
		read := f[key]
		if read == nil {
			known := slices.Sorted(maps.Keys(f))
			if near := spelling.Nearest(key, known); near != "" {
				return fmt.Errorf("%s is unknown; did you mean %s?", key, near)
			}
			return fmt.Errorf("%s is unknown; known: %s", key, strings.Join(known, ", "))
		}
		if isNull(value) {
			return nil
		}
		if err := read(value); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		return nil
	})
}

// field reads a value into a variable.
func field[T any](dst *T, read func(*yaml.Node) (T, error)) func(*yaml.Node) error {
	return func(n *yaml.Node) (err error) {
		*dst, err = read(n)
		return err
	}
}

func integerField(most int64) func(*yaml.Node) (int, error) {
	return func(n *yaml.Node) (int, error) {
		s := &Setting{Type: Integer, max: most}
		v, err := s.integer(n)
		return v, s.explain(err)
	}
}

// readQueues reads task_queues: a list of names and maps, or a map of names to maps.
func readQueues(n *yaml.Node) ([]transport.Queue, error) {
	n = resolve(n)
	var queues []transport.Queue
	var errs []error
	add := func(name string, n *yaml.Node) error {
		q, err := readQueue(name, n)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", n.Line, err))
		}
		queues = append(queues, q)
		return nil
	}
	switch n.Kind {
	case yaml.SequenceNode:
		for _, e := range n.Content {
			_ = add("", resolve(e))
		}
	case yaml.MappingNode:
		if err := eachKey(n, add); err != nil {
			return nil, err
		}
	default:
		list, err := names(n)
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			queues = append(queues, transport.Queue{Name: name})
		}
	}
	return queues, errors.Join(errs...)
}

// readQueue reads one queue, under the names kombu's Queue has for its parts.
func readQueue(name string, n *yaml.Node) (transport.Queue, error) {
	q := transport.Queue{Name: name}
	if isNull(n) && name != "" {
		return q, nil
	}
	if resolve(n).Kind == yaml.ScalarNode && name == "" {
		var err error
		q.Name, err = text(n)
		return q, err
	}
	durable, priority, broadcast := true, 0, false
	var typ string
	err := fields{
		"name":            field(&q.Name, text),
		"exchange":        field(&q.Exchange, text),
		"exchange_type":   field(&q.ExchangeType, text),
		"routing_key":     field(&q.RoutingKey, text),
		"binding_key":     field(&q.RoutingKey, text),
		"queue_arguments": field(&q.Arguments, options),
		"queue_type":      field(&typ, text),
		"max_priority":    field(&priority, integerField(255)),
		"durable":         field(&durable, boolean),
		"auto_delete":     field(&q.AutoDelete, boolean),
		"exclusive":       field(&q.Exclusive, boolean),
		"broadcast":       field(&broadcast, boolean),
	}.read(n)
	switch {
	case err != nil:
		return q, err
	case q.Name == "":
		return q, errors.New("a queue has no name")
	case q.ExchangeType != "" && !slices.Contains(exchangeTypes, q.ExchangeType):
		return q, fmt.Errorf("queue %s: exchange_type: %q is not one of %s", q.Name, q.ExchangeType, strings.Join(exchangeTypes, ", "))
	case typ != "" && !slices.Contains(queueTypes, typ):
		return q, fmt.Errorf("queue %s: queue_type: %q is not one of %s", q.Name, typ, strings.Join(queueTypes, ", "))
	case broadcast:
		return task.Broadcast(q.Name), nil
	}
	q.Transient = !durable
	if q.Arguments == nil && (priority > 0 || typ == "quorum") {
		q.Arguments = map[string]any{}
	}
	if priority > 0 {
		q.Arguments["x-max-priority"] = int64(priority)
	}
	if typ == "quorum" {
		q.Arguments["x-queue-type"] = typ
	}
	return q, nil
}

// readRoutes reads task_routes: a map of names and patterns, or a list of such maps and of pairs.
func readRoutes(n *yaml.Node) ([]task.Route, error) {
	n = resolve(n)
	var routes []task.Route
	var errs []error
	add := func(name string, n *yaml.Node) error {
		options, err := readRoute(n)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %s: %w", n.Line, name, err))
		}
		routes = append(routes, task.Route{Task: name, Options: options})
		return nil
	}
	if n.Kind == yaml.MappingNode {
		if err := eachKey(n, add); err != nil {
			return nil, err
		}
		return routes, errors.Join(errs...)
	}
	if n.Kind != yaml.SequenceNode {
		return nil, &wrongKind{what: shown(n)}
	}
	for _, e := range n.Content {
		e = resolve(e)
		switch {
		case e.Kind == yaml.MappingNode:
			if err := eachKey(e, add); err != nil {
				return nil, err
			}
		case e.Kind == yaml.SequenceNode && len(e.Content) == 2:
			name, err := text(e.Content[0])
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", e.Line, err)
			}
			_ = add(name, e.Content[1])
		default:
			return nil, fmt.Errorf("line %d: %s is neither a map nor a pair", e.Line, shown(e))
		}
	}
	return routes, errors.Join(errs...)
}

// readRoute reads what the tasks of a route get: the name of a queue, or options under apply_async's names.
func readRoute(n *yaml.Node) ([]task.Option, error) {
	if resolve(n).Kind == yaml.ScalarNode {
		queue, err := text(n)
		if err == nil && queue == "" {
			err = errors.New("the queue has no name")
		}
		return []task.Option{task.Queue(queue)}, err
	}
	var all []task.Option
	texts := func(option func(string) task.Option) func(*yaml.Node) error {
		return func(n *yaml.Node) error {
			v, err := text(n)
			if err == nil && v == "" {
				err = errors.New("it is empty")
			}
			all = append(all, option(v))
			return err
		}
	}
	spans := func(option func(time.Duration) task.Option) func(*yaml.Node) error {
		return func(n *yaml.Node) error {
			d, err := seconds(n)
			switch {
			case err != nil:
				err = (&Setting{Type: Seconds}).explain(err)
			case d == 0:
				err = errors.New("0 is not allowed")
			}
			all = append(all, option(d))
			return err
		}
	}
	err := fields{
		"queue":           texts(task.Queue),
		"exchange":        texts(task.Exchange),
		"routing_key":     texts(task.RoutingKey),
		"serializer":      texts(task.Serializer),
		"compression":     texts(task.Compression),
		"expires":         spans(task.Expires),
		"time_limit":      spans(task.TimeLimit),
		"soft_time_limit": spans(task.SoftTimeLimit),
		"priority": func(n *yaml.Node) error {
			v, err := integerField(255)(n)
			all = append(all, task.Priority(v))
			return err
		},
		"ignore_result": func(n *yaml.Node) error {
			v, err := boolean(n)
			all = append(all, task.IgnoreResult(v))
			return err
		},
		"delivery_mode": func(n *yaml.Node) error {
			v, err := integerField(2)(n)
			if v == 1 {
				all = append(all, task.Transient())
			}
			return err
		},
	}.read(n)
	return all, err
}

// readLimits reads worker_limits: a list of maps.
func readLimits(n *yaml.Node) ([]worker.Limit, error) {
	if n = resolve(n); n.Kind != yaml.SequenceNode {
		return nil, &wrongKind{what: shown(n)}
	}
	limits := make([]worker.Limit, len(n.Content))
	var errs []error
	for i, e := range n.Content {
		l := &limits[i]
		err := fields{
			"task":        field(&l.Task, text),
			"queue":       field(&l.Queue, text),
			"rate":        field(&l.Rate, rateField),
			"concurrency": field(&l.Concurrency, integerField(math.MaxInt32)),
		}.read(e)
		switch {
		case err != nil:
		case (l.Task == "") == (l.Queue == ""):
			err = errors.New("a limit is of a task or of a queue: one of the two")
		case l.Rate == "" && l.Concurrency == 0:
			err = errors.New("a limit has a rate, a concurrency, or both")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", e.Line, err))
		}
	}
	return limits, errors.Join(errs...)
}

func rateField(n *yaml.Node) (string, error) {
	v, err := rate(n)
	return v, (&Setting{Type: Rate}).explain(err)
}
