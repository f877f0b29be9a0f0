package redis

import (
	"context"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/transport"
)

var _ transport.Examiner = (*Backend)(nil)

// Examine is transport.Examiner's. Queues mean nothing to it. It may cost results, not tasks, if this Redis forgets: what
// is an error for a broker may be a warning here.
func (b *Backend) Examine(ctx context.Context, _ []string) ([]transport.Finding, error) {
	key := b.key("id")
	server, err := b.config.Examine(ctx, b.client, redisconn.ExamineOptions{Holds: "results", Commands: [][]any{
		{"PING"}, {"EVALSHA", "0", "1", key}, {"EVAL", "return 1", "1", key}, {"GET", key}, {"GETRANGE", key, "0", "1"}, {"MGET", key},
		{"SET", key, "m"}, {"SETEX", key, "1", "m"}, {"DEL", key}, {"PUBLISH", key, "m"}, {"SUBSCRIBE", key},
		{"TYPE", key}, {"EXPIRE", key, "1"}, {"INCRBY", key, "1"},
		{"ZADD", key, "0", "m"}, {"ZCARD", key}, {"ZRANK", key, "m"}, {"ZRANGE", key, "0", "1"}, {"ZREM", key, "m"},
	}})
	if err != nil {
		return nil, err
	}
	found := make([]transport.Finding, len(server))
	for i, f := range server {
		found[i] = transport.Finding{Subject: f.Subject, Health: transport.Health(f.Health), Detail: f.Detail, Advice: f.Advice}
	}
	return found, nil
}
