package redis

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/transport"
)

// bindings reads and writes the binding sets: which queues an exchange feeds. The type of an exchange is not stored in
// Redis; Python knows only the types it declared itself and takes any other for direct. We read the type off the
// members: a topic binding carries its pattern in the second field, a direct one has none.
type bindings struct {
	t        *redisTransport
	declared sync.Map // binding key + member that this process has added
	unbound  sync.Map // queues that this process has declared without any
}

// member is one entry of a binding set: routing key, pattern, queue.
func (k *keys) member(routingKey, pattern, queue string) string {
	return routingKey + k.sep + pattern + k.sep + queue
}

// Declare implements transport.Transport: it adds the queue's bindings. Redis has no queues to create.
func (t *redisTransport) Declare(ctx context.Context, q transport.Queue) error {
	if err := check(q); err != nil {
		return err
	}
	if q.Unbound && len(q.Bindings) == 0 {
		t.bindings.unbound.Store(q.Name, nil)
		return nil
	}
	if !q.Unbound {
		own := transport.Binding{Exchange: q.Exchange, ExchangeType: q.ExchangeType, RoutingKey: q.RoutingKey}
		if own.Exchange == "" {
			own.Exchange = q.Name
		}
		if own.RoutingKey == "" && own.ExchangeType != "fanout" {
			own.RoutingKey = q.Name
		}
		if err := t.bind(ctx, q.Name, own); err != nil {
			return err
		}
	}
	for _, b := range q.Bindings {
		if err := t.bind(ctx, q.Name, b); err != nil {
			return err
		}
	}
	return nil
}

func check(q transport.Queue) error {
	if q.Name == "" {
		return errors.New("queue name is empty")
	}
	if q.Broadcast {
		return fmt.Errorf("queue %q: broadcast queues are not supported on Redis; use RabbitMQ, or one queue for each worker", q.Name)
	}
	return nil
}

// bind adds one binding to the set of its exchange, once a process.
func (t *redisTransport) bind(ctx context.Context, queue string, b transport.Binding) error {
	pattern := ""
	switch b.ExchangeType {
	case "", "direct", "fanout":
	case "topic":
		pattern = topicPattern(b.RoutingKey)
	default:
		return fmt.Errorf("queue %q: exchange type %q is not supported on Redis; use direct, topic or fanout", queue, b.ExchangeType)
	}
	if strings.Contains(queue, t.keys.sep) || strings.Contains(b.RoutingKey, t.keys.sep) {
		return fmt.Errorf("queue %q: name and routing key must not contain the separator %q", queue, t.keys.sep)
	}
	key, member := t.keys.binding(b.Exchange), t.keys.member(b.RoutingKey, pattern, queue)
	if _, done := t.bindings.declared.Load(key + member); done {
		return nil
	}
	err := redisconn.Do(ctx, t.log, "declare", func(ctx context.Context) error {
		return t.commands.SAdd(ctx, key, member).Err()
	})
	if err != nil {
		return fmt.Errorf("declare queue %q: %w", queue, err)
	}
	t.bindings.declared.Store(key+member, true)
	return nil
}

// match returns the queues bound to the exchange for the routing key, each once, sorted.
func (b *bindings) match(ctx context.Context, exchange, routingKey string) ([]string, error) {
	var members []string
	err := redisconn.Do(ctx, b.t.log, "read bindings", func(ctx context.Context) (err error) {
		members, err = b.t.commands.SMembers(ctx, b.t.keys.binding(exchange)).Result()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bindings of exchange %q: %w", exchange, err)
	}
	var queues []string
	for _, m := range members {
		f := strings.SplitN(m, b.t.keys.sep, 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "" && f[0] == routingKey || f[1] != "" && topicMatches(f[0], f[1], routingKey) {
			queues = append(queues, f[2])
		}
	}
	slices.Sort(queues)
	return slices.Compact(queues), nil
}

// topicPattern is the regular expression kombu stores for a topic binding: "*" is one word, "#" any text.
func topicPattern(bindingKey string) string {
	words := strings.Split(bindingKey, ".")
	for i, w := range words {
		switch w {
		case "*":
			words[i] = `.*?[^\.]`
		case "#":
			words[i] = `.*?`
		default:
			words[i] = pythonEscape(w)
		}
	}
	return "^" + strings.Join(words, `\.`) + "$"
}

// pythonEscape is re.escape of Python 3.7 and later, so that Go and Python add the same member for one binding.
func pythonEscape(s string) string {
	const special = "()[]{}?*+-|^$\\.&~# \t\n\r\v\f"
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(special, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// topicMatches applies a stored pattern. A pattern Go cannot read (Python's syntax is wider, anyone may write the set)
// falls back to the binding key it was made of.
func topicMatches(bindingKey, pattern, routingKey string) bool {
	re, err := regexp.Compile(pattern)
	if err != nil {
		if re, err = regexp.Compile(topicPattern(bindingKey)); err != nil {
			return false
		}
	}
	return re.MatchString(routingKey)
}
