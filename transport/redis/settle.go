package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// settleChunk bounds one script call's tags, as Lua's unpack is bounded.
const settleChunk = 1000

// Settle implements transport.Consumer. Reject has no dead-letter exchange to go to on Redis: it removes, like Ack.
func (c *consumer) Settle(ctx context.Context, batch []transport.Settlement) (lost int, err error) {
	acks := make([]any, 0, len(batch))
	var gives []transport.Settlement
	for _, s := range batch {
		switch s.Verdict {
		case transport.Ack, transport.Reject:
			acks = append(acks, s.Delivery.Tag)
		default:
			gives = append(gives, s)
		}
	}
	c.settling(batch)
	unacked := []string{c.t.keys.unackedKey(), c.t.keys.unackedIndexKey()}
	for chunk := range slices.Chunk(acks, settleChunk) {
		held, err := c.run(ctx, "acknowledge", func(ctx context.Context) (int, error) {
			return ackScript.Run(ctx, c.t.commands, unacked, chunk...).Int()
		})
		if err != nil {
			return lost, err
		}
		lost += len(chunk) - held
		c.release(chunk)
	}
	// Pushed to the front one after the other, the last one pushed is the first to be popped: the oldest goes last.
	slices.SortStableFunc(gives, func(a, b transport.Settlement) int {
		return compareTags(b.Delivery.Tag, a.Delivery.Tag)
	})
	for chunk := range slices.Chunk(gives, 100) {
		keys, args, tags := slices.Clone(unacked), make([]any, 0, 3*len(chunk)), make([]any, 0, len(chunk))
		for _, s := range chunk {
			list, command, envelope := c.give(s)
			keys = append(keys, list)
			args = append(args, s.Delivery.Tag, command, envelope)
			tags = append(tags, s.Delivery.Tag)
		}
		held, err := c.run(ctx, "give back", func(ctx context.Context) (int, error) {
			return giveScript.Run(ctx, c.t.commands, keys, args...).Int()
		})
		if err != nil {
			return lost, err
		}
		lost += len(chunk) - held
		c.release(tags)
	}
	return lost, nil
}

// give says where a delivery goes and as what.
func (c *consumer) give(s transport.Settlement) (list, command string, envelope []byte) {
	d := s.Delivery
	verdict, reason := s.Verdict, s.Reason
	if verdict != transport.Quarantine {
		marked, err := protocol.MarkRedelivered(d.Raw)
		if err == nil && d.Message != nil {
			command = "RPUSH"
			if verdict == transport.Requeue {
				command = "LPUSH"
			}
			return c.t.keys.listFor(d.Queue, &d.Message.Properties), command, marked
		}
		// It cannot go back: whoever received it next would fail on it too.
		reason = fmt.Sprintf("cannot be given back: %v", errors.Join(err, d.Err))
	}
	return c.t.keys.quarantine(d.Queue), "LPUSH", quarantineRecord(reason, d.Raw)
}

// run is redisconn.Do for scripts that answer a count. Running one again after a lost reply finds its work done and
// answers fewer: those are then reported lost, which errs on the side of saying that a task may run twice.
func (c *consumer) run(ctx context.Context, what string, f func(context.Context) (int, error)) (n int, err error) {
	err = redisconn.Do(ctx, c.log, what, func(ctx context.Context) (err error) {
		n, err = f(ctx)
		return err
	})
	return n, err
}

// settling marks deliveries, so that the lease actor, which may have listed them before, does not miss them.
func (c *consumer) settling(batch []transport.Settlement) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		if h := c.held[s.Delivery.Tag]; h != nil {
			h.settling = true
		}
	}
}

// release ends the lease of settled deliveries.
func (c *consumer) release(tags []any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range tags {
		delete(c.held, t.(string))
	}
}

// compareTags orders tags of one consumer as they were received: by claim, then by place in it.
func compareTags(a, b string) int {
	claimA, placeA := splitTag(a)
	claimB, placeB := splitTag(b)
	if claimA != claimB {
		return claimA - claimB
	}
	return placeA - placeB
}

func splitTag(tag string) (claim, place int) {
	if i := strings.LastIndexByte(tag, ':'); i > 0 {
		place, _ = strconv.Atoi(tag[i+1:])
		tag = tag[:i]
	}
	if i := strings.LastIndexByte(tag, ':'); i >= 0 {
		claim, _ = strconv.Atoi(tag[i+1:])
	}
	return claim, place
}

// quarantineRecord is what a quarantine list holds: one line of JSON that says when and why, then the bytes.
func quarantineRecord(reason string, raw []byte) []byte {
	line, _ := json.Marshal(map[string]any{"time": float64(time.Now().UnixMicro()) / 1e6, "reason": reason})
	return append(append(line, '\n'), raw...)
}
