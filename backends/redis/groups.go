package redis

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
)

var _ backends.GroupKeeper = (*Backend)(nil)

func (b *Backend) groupKey(id string) string { return b.global + backends.GroupKeyPrefix + id }

// set stores as Celery does whatever is not the meta of a task: SETEX (SET without expiry), and the same on the channel.
func (b *Backend) set(ctx context.Context, p redis.Pipeliner, key string, v any) {
	p.Set(ctx, key, v, b.ttl)
	p.Publish(ctx, key, v)
}

// SaveGroup is backends.GroupKeeper's.
func (b *Backend) SaveGroup(ctx context.Context, group *protocol.ResultTuple) error {
	document, err := b.codec.AppendGroup(nil, group)
	if err != nil {
		return err
	}
	if len(document) > b.largest {
		return b.tooLarge(group.ID, len(document))
	}
	return redisconn.Do(ctx, b.log, "save group", func(ctx context.Context) error {
		_, err := b.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			b.set(ctx, p, b.groupKey(group.ID), document)
			return nil
		})
		return err
	}, redisconn.RetryFull)
}

// LoadGroup is backends.GroupKeeper's.
func (b *Backend) LoadGroup(ctx context.Context, id string) (*protocol.ResultTuple, error) {
	var data []byte
	err := redisconn.Do(ctx, b.log, "load group", func(ctx context.Context) (err error) {
		data, err = b.client.Get(ctx, b.groupKey(id)).Bytes()
		return err
	})
	if errors.Is(err, redis.Nil) {
		return nil, nil // there is none
	}
	if err != nil {
		return nil, err
	}
	return b.codec.DecodeGroup(id, data)
}

// ForgetGroup is backends.GroupKeeper's.
func (b *Backend) ForgetGroup(ctx context.Context, id string) error {
	return redisconn.Do(ctx, b.log, "forget group", func(ctx context.Context) error {
		return b.client.Del(ctx, b.groupKey(id)).Err()
	})
}
