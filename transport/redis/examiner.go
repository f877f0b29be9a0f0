package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/transport"
)

var _ transport.Examiner = (*redisTransport)(nil)

// Examine implements transport.Examiner.
func (t *redisTransport) Examine(ctx context.Context, queues []string) ([]transport.Finding, error) {
	server, err := t.conn.Examine(ctx, t.commands, redisconn.ExamineOptions{Holds: "messages", Commands: t.neededCommands()})
	if err != nil {
		return nil, err
	}
	found := make([]transport.Finding, 0, len(server)+len(queues)+1)
	for _, f := range server {
		found = append(found, transport.Finding{Subject: f.Subject, Health: transport.Health(f.Health), Detail: f.Detail, Advice: f.Advice})
	}
	found = append(found, t.examineClaims(ctx))
	if len(queues) == 0 {
		if queues, err = t.Queues(ctx); err != nil {
			return nil, err
		}
	}
	depths, err := t.Depths(ctx, queues)
	if err != nil {
		return nil, err
	}
	for _, d := range depths {
		f := transport.Finding{Subject: "queue " + d.Queue, Health: transport.Healthy,
			Detail: fmt.Sprintf("%d waiting; %d unacked", d.Messages, d.Unacked)}
		if d.Error != "" {
			f.Health, f.Detail, f.Advice = transport.Broken, d.Error, "move the key of another type away with RENAME"
		}
		found = append(found, f)
		if d.Quarantined > 0 {
			found = append(found, transport.Finding{Subject: "quarantine of " + d.Queue, Health: transport.Doubtful,
				Detail: plural(d.Quarantined, "message") + " that no worker could handle", Advice: "look at them, then purge them"})
		}
	}
	return found, nil
}

// examineClaims looks for claims older than any worker holds one: nobody sweeps them.
func (t *redisTransport) examineClaims(ctx context.Context) transport.Finding {
	f := transport.Finding{Subject: "unacked", Health: transport.Healthy}
	now, err := t.commands.Time(ctx).Result()
	if err != nil {
		now = time.Now()
	}
	all := t.commands.HLen(ctx, t.keys.unackedKey())
	delayed := t.commands.ZCount(ctx, t.keys.unackedIndexKey(), strconv.FormatInt(now.Add(time.Second).Unix(), 10), "+inf")
	old := t.commands.ZCount(ctx, t.keys.unackedIndexKey(), "-inf", strconv.FormatInt(now.Add(-t.options.visibilityTimeout-time.Minute).Unix(), 10))
	for _, c := range []struct {
		name string
		err  error
	}{{t.keys.unackedKey(), all.Err()}, {t.keys.unackedIndexKey(), old.Err()}} {
		if c.err != nil {
			f.Health, f.Detail = transport.Broken, fmt.Sprintf("key %q: %v", c.name, c.err)
			if !refused(c.err) {
				f.Health = transport.Unknown
			}
			return f
		}
	}
	f.Detail = plural(max(0, all.Val()-delayed.Val()), "message") + " held by workers"
	if n := delayed.Val(); n > 0 {
		f.Detail += fmt.Sprintf(", %d delayed", n)
	}
	if n := old.Val(); n > 0 {
		f.Health, f.Advice = transport.Doubtful, "start a worker, which gives them back to their queues"
		f.Detail += fmt.Sprintf(", %d of them for longer than the visibility timeout of %v", n, t.options.visibilityTimeout)
	}
	return f
}

// neededCommands are what a producer and a worker send, scripts' commands included, on the keys of the queue celery.
func (t *redisTransport) neededCommands() [][]any {
	const queue = "celery"
	list, binding, quarantine := t.keys.list(queue, 0), t.keys.binding(queue), t.keys.quarantine(queue)
	held, index, marker := t.keys.unackedKey(), t.keys.unackedIndexKey(), t.keys.publisher("client")
	delayed := t.keys.delayed(list)
	return [][]any{
		{"PING"}, {"TIME"}, {"EVALSHA", "0", "1", list}, {"EVAL", "return 1", "1", list},
		{"LPUSH", list, "m"}, {"RPUSH", list, "m"}, {"RPOP", list, "1"}, {"LLEN", list}, {"BLMOVE", list, list, "RIGHT", "RIGHT", "1"},
		{"LPUSH", quarantine, "m"}, {"LLEN", quarantine},
		{"HSET", held, "tag", "m"}, {"HGET", held, "tag"}, {"HDEL", held, "tag"}, {"HLEN", held},
		{"ZADD", index, "1", "tag"}, {"ZREM", index, "tag"}, {"ZSCORE", index, "tag"}, {"ZCARD", index},
		{"ZRANGEBYSCORE", index, "-inf", "1"}, {"LINDEX", list, "-1"},
		{"ZADD", delayed, "1", "tag"}, {"ZREM", delayed, "tag"}, {"ZCARD", delayed}, {"ZRANGE", delayed, "0", "0"},
		{"ZRANGEBYSCORE", delayed, "-inf", "1"}, {"PTTL", delayed}, {"PEXPIRE", delayed, "1"},
		{"SADD", binding, "m"}, {"SMEMBERS", binding},
		{"GET", marker}, {"SET", marker, "1"}, {"UNLINK", marker}, {"EXISTS", t.keys.once(list, "id")}, {"SET", t.keys.once(list, "id"), "1"},
		{"PUBLISH", t.keys.channel("celery.pidbox", ""), "m"}, {"PSUBSCRIBE", t.keys.pattern("celery.pidbox", "")},
	}
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}
