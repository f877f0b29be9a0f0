package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/transport"
)

var (
	_ transport.Administrator = (*redisTransport)(nil)
	_ transport.BindingLister = (*redisTransport)(nil)
)

// DeclareExchange implements transport.Administrator. On Redis there is nothing to declare: an exchange is the set of
// its bindings, and a binding knows its type.
func (t *redisTransport) DeclareExchange(_ context.Context, x transport.Exchange) error {
	return t.checkBinding(x.Name, transport.Binding{ExchangeType: x.Type})
}

// DeleteExchange implements transport.Administrator.
func (t *redisTransport) DeleteExchange(ctx context.Context, name string, ifUnused bool) error {
	size := t.commands.SCard(ctx, t.keys.binding(name)) // fails on what is no set, and not ours
	n, err := size.Result()
	switch {
	case err != nil:
		return keyed(size, err)
	case n == 0:
		return nil
	case ifUnused:
		return fmt.Errorf("exchange %q is in use and was not deleted: it has %d bindings", name, n)
	}
	t.bindings.declared.Clear()
	return t.commands.Del(ctx, t.keys.binding(name)).Err()
}

// Bind implements transport.Administrator. The exchange's type must be given if it is topic.
func (t *redisTransport) Bind(ctx context.Context, queue string, b transport.Binding) error {
	if err := t.checkBinding(queue, b); err != nil {
		return err
	}
	pattern := ""
	if b.ExchangeType == "topic" {
		pattern = topicPattern(b.RoutingKey)
	}
	add := t.commands.SAdd(ctx, t.keys.binding(b.Exchange), t.keys.member(b.RoutingKey, pattern, queue))
	return keyed(add, add.Err())
}

func (t *redisTransport) checkBinding(name string, b transport.Binding) error {
	if !slices.Contains([]string{"", "direct", "topic", "fanout"}, b.ExchangeType) {
		return fmt.Errorf("%q: exchange type %q is not supported on Redis; use direct, topic or fanout", name, b.ExchangeType)
	}
	if strings.Contains(name+b.RoutingKey, t.keys.sep) {
		return fmt.Errorf("%q: name and routing key must not contain the separator %q", name, t.keys.sep)
	}
	return nil
}

// Unbind implements transport.Administrator, whatever the exchange's type.
func (t *redisTransport) Unbind(ctx context.Context, queue string, b transport.Binding) error {
	return t.unbind(ctx, t.keys.binding(b.Exchange), func(key, bound string) bool { return key == b.RoutingKey && bound == queue })
}

// unbind removes the members of a binding set that match.
func (t *redisTransport) unbind(ctx context.Context, set string, match func(routingKey, queue string) bool) error {
	read := t.commands.SMembers(ctx, set)
	members, err := read.Result()
	if err != nil {
		return keyed(read, err)
	}
	var gone []any
	for _, m := range members {
		if f := strings.SplitN(m, t.keys.sep, 3); len(f) == 3 && match(f[0], f[2]) {
			gone = append(gone, m)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	t.bindings.declared.Clear()
	return t.commands.SRem(ctx, set, gone...).Err()
}

// deleteScript removes a queue's lists.
//
//	KEYS the lists, then as many sets of delayed messages   ARGV 1 "1": only if all are empty
//	reply: how many messages there were in the lists, or -1 - the number in lists and sets if they stay
//
// LLEN and ZCARD fail on a key of another type before anything is removed.
var deleteScript = goredis.NewScript(`
local n, delayed = 0, 0
for i = 1, #KEYS / 2 do
  n = n + redis.call('LLEN', KEYS[i])
  delayed = delayed + redis.call('ZCARD', KEYS[#KEYS / 2 + i])
end
if ARGV[1] == '1' and n + delayed > 0 then return -1 - n - delayed end
for i = 1, #KEYS / 2 do redis.call('DEL', KEYS[i]) end
return n
`)

// DeleteQueue implements transport.Administrator. What workers hold stays with them, what is in quarantine stays there.
// Redis does not know who consumes, so ifUnused is an error.
func (t *redisTransport) DeleteQueue(ctx context.Context, name string, ifUnused, ifEmpty bool) (int64, error) {
	if ifUnused {
		return 0, errors.New("on Redis nobody can tell whether a queue is unused")
	}
	condition := "0"
	if ifEmpty {
		condition = "1"
	}
	n, err := deleteScript.Run(ctx, t.commands, append(t.keys.lists(name), t.keys.delayedSets(name)...), condition).Int64()
	if err != nil {
		return 0, fmt.Errorf("delete queue %q: %w", name, err)
	}
	if n < 0 {
		return 0, fmt.Errorf("queue %q is not empty and was not deleted: %d messages wait in it", name, -1-n)
	}
	delayed, err := t.forget(ctx, name)
	n += delayed
	if err != nil {
		return n, err
	}
	if _, unbound := t.bindings.unbound.LoadAndDelete(name); unbound {
		return n, nil // a reply queue: the whole keyspace need not be searched for bindings
	}
	err = t.scan(ctx, t.keys.binding(""), "set", func(set string) error {
		return t.unbind(ctx, set, func(_, bound string) bool { return bound == name })
	})
	return n, err
}
