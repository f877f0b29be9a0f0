package redis

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

var _ transport.Inspector = (*redisTransport)(nil)

// Depths implements transport.Inspector. Unacked is counted over the whole hash, by the queue each entry names.
func (t *redisTransport) Depths(ctx context.Context, queues []string) ([]transport.Depth, error) {
	unacked, err := t.unackedByQueue(ctx)
	if err != nil {
		return nil, err
	}
	pipe := t.commands.Pipeline()
	for _, q := range queues {
		for _, list := range t.keys.lists(q) {
			pipe.LLen(ctx, list)
		}
		pipe.LLen(ctx, t.keys.quarantine(q))
	}
	replies, err := pipe.Exec(ctx)
	if err != nil {
		return nil, err
	}
	per := len(t.keys.steps) + 1
	out := make([]transport.Depth, len(queues))
	for i, q := range queues {
		d := transport.Depth{Queue: q, ByPriority: map[int]int64{}, Unacked: unacked[q]}
		for s, step := range t.keys.steps {
			n := replies[i*per+s].(*goredis.IntCmd).Val()
			d.ByPriority[step] = n
			d.Messages += n
		}
		d.Quarantined = replies[i*per+per-1].(*goredis.IntCmd).Val()
		out[i] = d
	}
	return out, nil
}

// unackedByQueue reads the tail of each unacked value, where exchange and queue stand.
func (t *redisTransport) unackedByQueue(ctx context.Context) (map[string]int64, error) {
	counts := map[string]int64{}
	for cursor := uint64(0); ; {
		page, next, err := t.commands.HScan(ctx, t.keys.unackedKey(), cursor, "", 500).Result()
		if err != nil {
			return nil, err
		}
		for i := 1; i < len(page); i += 2 {
			_, _, queue, _ := protocol.SplitUnacked([]byte(page[i]))
			counts[queue]++
		}
		if cursor = next; cursor == 0 {
			return counts, nil
		}
	}
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
	return t.drop(ctx, t.keys.lists(queue))
}

// PurgeQuarantine implements transport.Inspector.
func (t *redisTransport) PurgeQuarantine(ctx context.Context, queue string) (int64, error) {
	return t.drop(ctx, []string{t.keys.quarantine(queue)})
}

// drop deletes lists and counts what was in them, in one transaction, so that the count is true.
func (t *redisTransport) drop(ctx context.Context, lists []string) (int64, error) {
	pipe := t.commands.TxPipeline()
	counts := make([]*goredis.IntCmd, len(lists))
	for i, list := range lists {
		counts[i] = pipe.LLen(ctx, list)
		pipe.Del(ctx, list)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, err
	}
	var n int64
	for _, c := range counts {
		n += c.Val()
	}
	return n, nil
}

// Quarantined implements transport.Inspector.
func (t *redisTransport) Quarantined(ctx context.Context, queue string, limit int) ([]transport.QuarantinedMessage, error) {
	if limit <= 0 {
		return nil, nil
	}
	records, err := t.commands.LRange(ctx, t.keys.quarantine(queue), 0, int64(limit)-1).Result()
	if err != nil {
		return nil, err
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
