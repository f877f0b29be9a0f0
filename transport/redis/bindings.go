package redis

import (
	"context"
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
}

// member is one entry of a binding set: routing key, pattern, queue.
func (k *keys) member(routingKey, pattern, queue string) string {
	return routingKey + k.sep + pattern + k.sep + queue
}

// Declare implements transport.Transport: it adds the queue's binding. Redis has no queues to create.
func (t *redisTransport) Declare(ctx context.Context, q transport.Queue) error {
	q = withDefaults(q)
	if q.Name == "" {
		return fmt.Errorf("queue name is empty")
	}
	pattern := ""
	switch q.ExchangeType {
	case "direct", "fanout":
	case "topic":
		pattern = topicPattern(q.RoutingKey)
	default:
		return fmt.Errorf("queue %q: exchange type %q is not supported on Redis; use direct, topic or fanout", q.Name, q.ExchangeType)
	}
	if strings.Contains(q.Name, t.keys.sep) || strings.Contains(q.RoutingKey, t.keys.sep) {
		return fmt.Errorf("queue %q: name and routing key must not contain the separator %q", q.Name, t.keys.sep)
	}
	key, member := t.keys.binding(q.Exchange), t.keys.member(q.RoutingKey, pattern, q.Name)
	if _, done := t.bindings.declared.Load(key + member); done {
		return nil
	}
	err := redisconn.Do(ctx, t.log, "declare", func(ctx context.Context) error {
		return t.commands.SAdd(ctx, key, member).Err()
	})
	if err != nil {
		return fmt.Errorf("declare queue %q: %w", q.Name, err)
	}
	t.bindings.declared.Store(key+member, true)
	return nil
}

func withDefaults(q transport.Queue) transport.Queue {
	if q.Exchange == "" {
		q.Exchange = q.Name
	}
	if q.ExchangeType == "" {
		q.ExchangeType = "direct"
	}
	if q.RoutingKey == "" && q.ExchangeType != "fanout" {
		q.RoutingKey = q.Name
	}
	return q
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
