package redis

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

var (
	_ transport.Inspector = (*redisTransport)(nil)
	_ transport.Pinger    = (*redisTransport)(nil)
)

// Depths implements transport.Inspector. Unacked is counted over all that is held, by the queue each entry goes back to.
// A key that cannot be read, of another type mostly, spoils the numbers of its own queue and no others.
func (t *redisTransport) Depths(ctx context.Context, queues []string) ([]transport.Depth, error) {
	now, err := t.now(ctx)
	if err != nil {
		return nil, err
	}
	unacked, err := t.unackedByQueue(ctx, now)
	if err != nil && !refused(err) {
		return nil, err
	}
	pipe := t.commands.Pipeline()
	lists, quarantines := make([][]*goredis.IntCmd, len(queues)), make([]*goredis.IntCmd, len(queues))
	delayed, due := make([][]*goredis.IntCmd, len(queues)), make([][]*goredis.IntCmd, len(queues))
	for i, q := range queues {
		for _, set := range t.keys.delayedSets(q) {
			delayed[i] = append(delayed[i], pipe.ZCard(ctx, set))
			due[i] = append(due[i], pipe.ZCount(ctx, set, "-inf", now))
		}
		for _, list := range t.keys.lists(q) {
			lists[i] = append(lists[i], pipe.LLen(ctx, list))
		}
		quarantines[i] = pipe.LLen(ctx, t.keys.quarantine(q))
	}
	if _, err := pipe.Exec(ctx); err != nil && !refused(err) {
		return nil, err
	}
	out := make([]transport.Depth, len(queues))
	for i, q := range queues {
		d := transport.Depth{Queue: q, ByPriority: map[int]int64{}, Unacked: unacked[q]}
		var problems []string
		note := func(err error) bool {
			if err != nil {
				problems = append(problems, err.Error())
			}
			return err != nil
		}
		for s, reply := range lists[i] {
			n, err := reply.Val(), keyed(reply, reply.Err())
			if note(err) {
				d.Messages = -1
				continue
			}
			d.ByPriority[t.keys.steps[s]] = n
			if d.Messages >= 0 {
				d.Messages += n
			}
		}
		if d.Quarantined = quarantines[i].Val(); note(keyed(quarantines[i], quarantines[i].Err())) {
			d.Quarantined = -1
		}
		if note(err) {
			d.Unacked = -1
		}
		for s, reply := range delayed[i] {
			if note(keyed(reply, reply.Err())) {
				d.Delayed = -1
				break
			}
			d.Delayed += reply.Val()
			if d.Unacked > 0 { // what is due and was not moved yet is no worker's
				d.Unacked = max(0, d.Unacked-due[i][s].Val())
			}
		}
		d.Error = strings.Join(problems, "; ")
		out[i] = d
	}
	return out, nil
}

// refused tells an answer of Redis about one command, a key of the wrong type for example, from no answer.
func refused(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply) && redisconn.Classify(err) == redisconn.Fatal
}

// keyed names the key in the error of a command on one key.
func keyed(c goredis.Cmder, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("key %q: %w", c.Args()[1], err)
}

// now is the server's time in unix seconds, as scores are.
func (t *redisTransport) now(ctx context.Context) (string, error) {
	now, err := t.commands.Time(ctx).Result()
	return strconv.FormatFloat(float64(now.UnixMicro())/1e6, 'f', 6, 64), err
}

// clockSkew is by how much a Python worker's clock may be ahead, so that its claims are counted.
const clockSkew = 60

// unackedByQueue reads the tail of each unacked value, where exchange and routing key stand. What is delayed until later
// than now is left out: it may be a million. What Python took from a named exchange is counted under every queue it would
// be restored to, and nowhere if none is bound.
func (t *redisTransport) unackedByQueue(ctx context.Context, now string) (map[string]int64, error) {
	present, err := strconv.ParseFloat(now, 64)
	if err != nil {
		return nil, err
	}
	index := t.commands.ZRangeByScoreWithScores(ctx, t.keys.unackedIndexKey(),
		&goredis.ZRangeBy{Min: "-inf", Max: strconv.FormatFloat(present+clockSkew, 'f', 6, 64)})
	entries, err := index.Result()
	if err != nil {
		return nil, keyed(index, err)
	}
	if held := t.commands.HLen(ctx, t.keys.unackedKey()); held.Err() != nil {
		return nil, keyed(held, held.Err()) // also with an empty index
	}
	var tags []string
	for _, e := range entries {
		if tag, _ := e.Member.(string); e.Score <= present || !strings.HasPrefix(tag, tagPrefix) {
			tags = append(tags, tag)
		}
	}
	type route struct{ exchange, key string }
	counts, bound := map[string]int64{}, map[route][]string{}
	for page := range slices.Chunk(tags, 500) {
		get := t.commands.HMGet(ctx, t.keys.unackedKey(), page...)
		values, err := get.Result()
		if err != nil {
			return nil, keyed(get, err)
		}
		for _, v := range values {
			text, _ := v.(string) // "" for one that has been settled meanwhile
			_, exchange, key, err := protocol.SplitUnacked([]byte(text))
			if err != nil {
				continue
			}
			if exchange == "" {
				counts[key]++
				continue
			}
			r := route{exchange, key}
			queues, known := bound[r]
			if !known {
				if queues, err = t.bindings.match(ctx, exchange, key); err != nil {
					return nil, fmt.Errorf("key %q: %w", t.keys.binding(exchange), err)
				}
				bound[r] = queues
			}
			for _, q := range queues {
				counts[q]++
			}
		}
	}
	return counts, nil
}

// Queues implements transport.Inspector: the queues of all binding sets that have a list's key or were declared. Reply
// and pidbox queues of the control machinery are left out.
func (t *redisTransport) Queues(ctx context.Context) ([]string, error) {
	names := map[string]bool{}
	prefix := t.keys.binding("")
	if err := t.scan(ctx, prefix, "set", func(key string) error {
		members, err := t.commands.SMembers(ctx, key).Result()
		for _, m := range members {
			if f := strings.SplitN(m, t.keys.sep, 3); len(f) == 3 && !internalQueue(f[2]) {
				names[f[2]] = true
			}
		}
		return err
	}); err != nil {
		return nil, err
	}
	quarantine := t.keys.quarantine("")
	if err := t.scan(ctx, quarantine, "list", func(key string) error {
		names[strings.TrimPrefix(key, quarantine)] = true
		return nil
	}); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(names)), nil
}

// Bindings implements transport.BindingLister.
func (t *redisTransport) Bindings(ctx context.Context) ([]transport.BoundQueue, error) {
	var all []transport.BoundQueue
	prefix := t.keys.binding("")
	err := t.scan(ctx, prefix, "set", func(key string) error {
		members, err := t.commands.SMembers(ctx, key).Result()
		for _, m := range members {
			if f := strings.SplitN(m, t.keys.sep, 3); len(f) == 3 {
				all = append(all, transport.BoundQueue{Queue: f[2], Exchange: strings.TrimPrefix(key, prefix), RoutingKey: f[0]})
			}
		}
		return err
	})
	return transport.SortBindings(all), err
}

func (t *redisTransport) scan(ctx context.Context, prefix, kind string, f func(key string) error) error {
	it := t.commands.ScanType(ctx, 0, globLiteral.Replace(prefix)+"*", 500, kind).Iterator()
	for it.Next(ctx) {
		if err := f(it.Val()); err != nil {
			return err
		}
	}
	return it.Err()
}

// internalQueue tells the queues of remote control and events.
func internalQueue(name string) bool {
	return strings.HasSuffix(name, ".pidbox") || strings.HasPrefix(name, "celeryev")
}

// Purge implements transport.Inspector.
func (t *redisTransport) Purge(ctx context.Context, queue string) (int64, error) {
	waiting, err := t.drop(ctx, t.keys.lists(queue))
	delayed, forgetErr := t.forget(ctx, queue)
	return waiting + delayed, errors.Join(err, forgetErr)
}

// forget removes what is delayed of a queue and counts it.
func (t *redisTransport) forget(ctx context.Context, queue string) (n int64, err error) {
	for _, set := range t.keys.delayedSets(queue) {
		for {
			reply, err := forgetScript.Run(ctx, t.commands, []string{t.keys.unackedKey(), t.keys.unackedIndexKey(), set},
				settleChunk).Int64Slice()
			if err != nil {
				return n, fmt.Errorf("delayed messages of queue %q: %w", queue, err)
			}
			n += reply[0]
			if reply[1] == 0 {
				break
			}
		}
	}
	return n, nil
}

// PurgeQuarantine implements transport.Inspector.
func (t *redisTransport) PurgeQuarantine(ctx context.Context, queue string) (int64, error) {
	return t.drop(ctx, []string{t.keys.quarantine(queue)})
}

// drop empties lists and counts what was in them, in one transaction, so that the count is true. It trims rather than
// deletes: a key of another type is refused then and stays, it is not ours.
func (t *redisTransport) drop(ctx context.Context, lists []string) (int64, error) {
	pipe := t.commands.TxPipeline()
	counts := make([]*goredis.IntCmd, len(lists))
	for i, list := range lists {
		counts[i] = pipe.LLen(ctx, list)
		pipe.LTrim(ctx, list, 1, 0)
	}
	if _, err := pipe.Exec(ctx); err != nil && !refused(err) {
		return 0, err
	}
	var n int64
	var problems []error
	for _, c := range counts {
		n += c.Val()
		problems = append(problems, keyed(c, c.Err()))
	}
	return n, errors.Join(problems...)
}

// Quarantined implements transport.Inspector.
func (t *redisTransport) Quarantined(ctx context.Context, queue string, limit int) ([]transport.QuarantinedMessage, error) {
	if limit <= 0 {
		return nil, nil
	}
	reply := t.commands.LRange(ctx, t.keys.quarantine(queue), 0, int64(limit)-1)
	records, err := reply.Result()
	if err != nil {
		return nil, keyed(reply, err)
	}
	out := make([]transport.QuarantinedMessage, len(records))
	for i, r := range records {
		out[i] = readQuarantine(queue, []byte(r))
	}
	return out, nil
}

// readQuarantine takes a record apart; one not written by us is shown whole.
func readQuarantine(queue string, record []byte) transport.QuarantinedMessage {
	line, raw, ok := bytes.Cut(record, []byte("\n"))
	var head struct {
		Time   float64
		Reason string
	}
	if !ok || json.Unmarshal(line, &head) != nil {
		return transport.QuarantinedMessage{Queue: queue, Raw: record}
	}
	return transport.QuarantinedMessage{Time: time.UnixMicro(int64(head.Time * 1e6)), Queue: queue, Reason: head.Reason, Raw: raw}
}
