package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

const (
	// mailboxBacklog is how many replies may wait for Receive; more stay in Redis.
	mailboxBacklog = 1000
	// mailboxBlock is how long BRPOP waits before it is asked again.
	mailboxBlock = 5 * time.Second
	// mailboxGrace bounds the removal of a mailbox.
	mailboxGrace = 5 * time.Second
)

// mailbox is a subscription to replies of remote control. On Redis these are no broadcasts: workers push them to the
// queues that are bound for the routing key, and to none if whoever asked has gone. So it is popped, without a lease: a
// reply that is lost on the way is as one that was never sent.
type mailbox struct {
	t       *redisTransport
	client  goredis.UniversalClient
	binding string // the set
	member  string // of the set
	lists   []string
	ch      chan transport.Delivery
	cancel  context.CancelFunc
	popping sync.WaitGroup
	once    sync.Once
}

// openMailbox binds a queue for the key, under kombu's name, and begins to pop from it.
func (t *redisTransport) openMailbox(ctx context.Context, exchange, key string) (transport.Subscription, error) {
	queue := key + "." + exchange
	if err := t.bind(ctx, queue, transport.Binding{Exchange: exchange, RoutingKey: key}); err != nil {
		return nil, err
	}
	b := &mailbox{t: t, client: t.conn.Client(redisconn.ClientOptions{PoolSize: 1, Blocking: true}),
		binding: t.keys.binding(exchange), member: t.keys.member(key, "", queue), lists: t.keys.lists(queue),
		ch: make(chan transport.Delivery, mailboxBacklog)}
	ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	b.popping.Go(func() { b.pop(ctx) })
	return b, nil
}

// pop takes replies until the mailbox is closed.
func (b *mailbox) pop(ctx context.Context) {
	defer close(b.ch)
	var backoff redisconn.Backoff
	for ctx.Err() == nil {
		reply, err := b.client.BRPop(ctx, mailboxBlock, b.lists...).Result()
		if err != nil || len(reply) != 2 {
			if !errors.Is(err, goredis.Nil) && backoff.Wait(ctx) != nil {
				return
			}
			continue
		}
		backoff = redisconn.Backoff{}
		d := transport.Delivery{Raw: []byte(reply[1])}
		d.Message, d.Err = protocol.DecodeEnvelope(d.Raw)
		select {
		case b.ch <- d:
		case <-ctx.Done():
			return
		}
	}
}

// Receive implements transport.Subscription.
func (b *mailbox) Receive(ctx context.Context) (transport.Delivery, error) {
	select {
	case d, ok := <-b.ch:
		if !ok {
			return d, transport.ErrClosed
		}
		return d, nil
	case <-ctx.Done():
		return transport.Delivery{}, context.Cause(ctx)
	}
}

// Close implements transport.Subscription. The binding goes first, so that nothing is pushed any more.
func (b *mailbox) Close() (err error) {
	b.once.Do(func() {
		b.cancel()
		_ = b.client.Close() // which is what ends a wait at once
		b.popping.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), mailboxGrace)
		defer cancel()
		b.t.bindings.declared.Delete(b.binding + b.member)
		if err = b.t.commands.SRem(ctx, b.binding, b.member).Err(); err == nil {
			err = b.t.commands.Del(ctx, b.lists...).Err()
		}
		if err != nil {
			err = fmt.Errorf("remove mailbox %s: %w", b.lists[0], err)
		}
	})
	return err
}
