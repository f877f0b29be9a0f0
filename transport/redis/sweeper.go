package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
)

const sweepPage = 200

// expired is a claim nobody renews any more.
type expired struct {
	tag, score string
	value      []byte // unacked value: [envelope, exchange, routing key]
}

// sweep is the actor that gives back what dead workers held: Go's after the lease, Python's after the visibility
// timeout. Every consumer sweeps; the restore script makes racing harmless, so there is no lock that a killed sweeper
// could leave behind (Python's is left for five minutes).
func (c *consumer) sweep() {
	for {
		pause := c.t.options.sweepInterval/2 + rand.N(c.t.options.sweepInterval/2)
		select {
		case <-time.After(pause):
		case <-c.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
		if err := c.t.sweepOnce(ctx); err != nil && c.ctx.Err() == nil {
			c.log.Warn("sweep of dead workers' messages", "error", err)
		}
		cancel()
	}
}

// sweepOnce looks through the whole index once, page by page. What a page yields is restored newest first, so that
// the oldest is popped first; entries that stay (others' live claims) are stepped over.
func (t *redisTransport) sweepOnce(ctx context.Context) error {
	keys := []string{t.keys.unackedKey(), t.keys.unackedIndexKey()}
	for offset := 0; ; {
		reply, err := expiredScript.Run(ctx, t.commands, keys, t.options.visibilityTimeout.Seconds(),
			t.options.lease.Seconds(), tagPrefix, offset, sweepPage).Slice()
		if err != nil {
			return err
		}
		looked, _ := reply[0].(int64)
		fields, _ := reply[1].([]any)
		var page []expired
		for f := range slices.Chunk(fields, 3) {
			tag, _ := f[0].(string)
			score, _ := f[1].(string)
			value, _ := f[2].(string)
			page = append(page, expired{tag, score, []byte(value)})
		}
		restored, err := t.restore(ctx, page)
		if err != nil {
			return err
		}
		if restored > 0 {
			t.log.Warn("restored messages of a dead worker", "messages", restored)
		}
		if looked == 0 {
			return nil
		}
		offset += int(looked) - restored
	}
}

// restore gives expired claims back to the front of their queues, or to quarantine where they cannot be read.
func (t *redisTransport) restore(ctx context.Context, page []expired) (restored int, err error) {
	keys := []string{t.keys.unackedKey(), t.keys.unackedIndexKey()}
	args := make([]any, 0, 6*len(page))
	for _, e := range slices.Backward(page) {
		lists, envelope, err := t.destination(ctx, e.value)
		command := "RPUSH"
		if bad, ok := errors.AsType[*unreadable](err); ok {
			t.log.Error("message quarantined", "queue", bad.queue, "reason", bad.Error())
			lists, envelope, command = []string{t.keys.quarantine(bad.queue)}, quarantineRecord(bad.Error(), bad.raw), "LPUSH"
		} else if err != nil {
			if redisconn.Classify(err) == redisconn.Unavailable || ctx.Err() != nil {
				return 0, err
			}
			// One entry that cannot be routed must not keep the others from coming back.
			t.log.Error("message of a dead worker stays unacked", "tag", e.tag, "error", err)
			continue
		}
		if len(lists) > 0 {
			keys = append(keys, lists...)
			args = append(args, e.tag, e.score, e.value, command, envelope, len(lists))
		}
	}
	if len(args) == 0 {
		return 0, nil
	}
	var reply []any
	err = redisconn.Do(ctx, t.log, "restore", func(ctx context.Context) (err error) {
		reply, err = restoreScript.Run(ctx, t.commands, keys, args...).Slice()
		return err
	}, redisconn.RetryFull)
	if err != nil {
		return 0, err
	}
	for _, key := range reply[1:] {
		t.log.Error("message of a dead worker stays unacked: the key it goes back to is no list", "key", key)
	}
	n, _ := reply[0].(int64)
	return int(n), nil
}

// unreadable is an unacked value that holds no message.
type unreadable struct {
	queue string
	raw   []byte
	why   error
}

func (u *unreadable) Error() string { return fmt.Sprintf("found unacked and not readable: %v", u.why) }

// brokenClaim is an unacked value that is not JSON. Of one that Gelery recorded, the queue is known by how it ends.
func brokenClaim(value []byte, why error) *unreadable {
	if raw, queue, ok := splitRecord(value); ok {
		return &unreadable{queue, raw, why}
	}
	return &unreadable{"unacked", value, why}
}

// destination reads an unacked value: the lists it goes back to, and the envelope marked redelivered. With an exchange
// in it (a Python worker took it from a named exchange) the binding decides, as it does in Python's sweep; where
// Python then drops a message without binding, we leave it where it is and find no list.
func (t *redisTransport) destination(ctx context.Context, value []byte) (lists []string, envelope []byte, err error) {
	raw, exchange, routingKey, err := protocol.SplitUnacked(value)
	if err != nil {
		return nil, nil, brokenClaim(value, err)
	}
	queue := routingKey
	if exchange != "" {
		queue = exchange
	}
	m, err := protocol.DecodeEnvelope(raw)
	if err == nil && queue == "" {
		err = errors.New("neither exchange nor routing key")
	}
	if err != nil {
		return nil, nil, &unreadable{queue, raw, err}
	}
	if envelope, err = protocol.MarkRedelivered(raw); err != nil {
		return nil, nil, &unreadable{queue, raw, err}
	}
	if exchange == "" {
		return []string{t.keys.listFor(routingKey, &m.Properties)}, envelope, nil
	}
	queues, err := t.bindings.match(ctx, exchange, routingKey)
	if err != nil {
		return nil, nil, err
	}
	for _, q := range queues {
		lists = append(lists, t.keys.listFor(q, &m.Properties))
	}
	if len(lists) == 0 {
		t.log.Error("message of a dead worker has no queue to go back to: it stays in "+strconv.Quote(t.keys.unackedKey()),
			"exchange", exchange, "routing_key", routingKey, "task_id", m.Headers.ID)
	}
	return lists, envelope, nil
}
