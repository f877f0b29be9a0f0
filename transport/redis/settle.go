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
	acks, gives, lost := c.settling(batch)
	unacked := []string{c.t.keys.unackedKey(), c.t.keys.unackedIndexKey()}
	for chunk := range slices.Chunk(acks, settleChunk) {
		var held int
		doubt, err := c.until(ctx, "acknowledge", func(ctx context.Context) (err error) {
			held, err = ackScript.Run(ctx, c.t.commands, unacked, chunk...).Int()
			return err
		})
		if err != nil {
			return lost, err
		}
		if !doubt {
			lost += len(chunk) - held
		}
		c.release(chunk)
	}
	// Pushed to the front one after the other, the last one pushed is the first to be popped: the oldest goes last.
	slices.SortStableFunc(gives, func(a, b transport.Settlement) int {
		if a.Verdict != b.Verdict {
			return int(a.Verdict - b.Verdict)
		}
		if a.Verdict == transport.Return {
			a, b = b, a
		}
		return compareTags(a.Delivery.Tag, b.Delivery.Tag)
	})
	for chunk := range slices.Chunk(gives, 100) {
		n, err := c.giveAll(ctx, chunk)
		lost += n
		if err != nil {
			return lost, err
		}
	}
	return lost, nil
}

// giveAll gives a chunk back or away. What a list refuses that is none goes to quarantine instead; what that refuses
// too stays held, and goes on being renewed, until somebody mends the key.
func (c *consumer) giveAll(ctx context.Context, chunk []transport.Settlement) (lost int, err error) {
	keys := []string{c.t.keys.unackedKey(), c.t.keys.unackedIndexKey()}
	args, tags := make([]any, 0, 3*len(chunk)), make([]any, 0, len(chunk))
	for _, s := range chunk {
		list, command, envelope := c.give(s)
		keys = append(keys, list)
		args = append(args, s.Delivery.Tag, command, envelope)
		tags = append(tags, s.Delivery.Tag)
	}
	var reply []int64
	doubt, err := c.until(ctx, "give back", func(ctx context.Context) (err error) {
		reply, err = giveScript.Run(ctx, c.t.commands, keys, args...).Int64Slice()
		return err
	})
	if err != nil {
		return 0, err
	}
	var again []transport.Settlement
	for _, i := range slices.Backward(reply[1:]) {
		s := chunk[i-1]
		tags = slices.Delete(tags, int(i-1), int(i))
		c.log.Error("message cannot be given back: the key is no list", "key", keys[i+1], "queue", s.Delivery.Queue)
		if s.Verdict != transport.Quarantine {
			again = append(again, transport.Settlement{Delivery: s.Delivery, Verdict: transport.Quarantine,
				Reason: "cannot be given back: " + keys[i+1] + " is no list"})
		}
	}
	if !doubt {
		lost = len(tags) - int(reply[0])
	}
	c.release(tags)
	if len(again) > 0 {
		n, err := c.giveAll(ctx, again)
		return lost + n, err
	}
	return lost, nil
}

// give says where a delivery goes and as what.
func (c *consumer) give(s transport.Settlement) (list, command string, envelope []byte) {
	d := s.Delivery
	verdict, reason := s.Verdict, s.Reason
	if verdict != transport.Quarantine {
		marked, err := protocol.MarkRedelivered(d.Raw)
		if err == nil && d.Message != nil && d.Err == nil {
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

// until is redisconn.Do that goes on also after errors that should not come (a permission taken away, a key of the wrong
// type): what is held must be settled some day, and a restart gives it back. It returns an error only when ctx is done.
// doubt tells that an earlier try may have done the work, so that the count of the last one means nothing.
func (c *consumer) until(ctx context.Context, what string, f func(context.Context) error) (doubt bool, err error) {
	var backoff redisconn.Backoff
	for {
		err = redisconn.Do(ctx, c.log, what, func(ctx context.Context) error {
			err := f(ctx)
			doubt = doubt || redisconn.InDoubt(err)
			return err
		}, redisconn.RetryFull)
		if err == nil || ctx.Err() != nil {
			return doubt, err
		}
		c.log.Error(what+" goes on trying", "broker", c.t.conn.Redacted(), "error", err)
		if backoff.Wait(ctx) != nil {
			return doubt, err
		}
	}
}

// settling sorts a batch into what is acknowledged and what is given somewhere, without what is held no more: that may
// be in unacked nevertheless, delayed. It marks the deliveries, so that the lease actor, which may have listed them before,
// does not miss them.
func (c *consumer) settling(batch []transport.Settlement) (acks []any, gives []transport.Settlement, lost int) {
	acks = make([]any, 0, len(batch))
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		h := c.held[s.Delivery.Tag]
		if h == nil {
			lost++
			continue
		}
		h.settling = true
		switch s.Verdict {
		case transport.Ack, transport.Reject:
			acks = append(acks, s.Delivery.Tag)
		default:
			if s.Verdict == transport.Return && h.begun > 0 {
				s.Delivery = uncounted(s.Delivery, h.begun)
			}
			gives = append(gives, s)
		}
	}
	return acks, gives, lost
}

// uncounted is a delivery without the beginning that Begin has counted: a stop is no failed attempt.
func uncounted(d *transport.Delivery, attempts int) *transport.Delivery {
	raw, err := protocol.MarkAttempts(d.Raw, attempts-1)
	if err != nil {
		return d
	}
	before := *d
	before.Raw = raw
	return &before
}

// Quarantine implements transport.Quarantiner.
func (c *consumer) Quarantine(ctx context.Context, d *transport.Delivery, reason string) error {
	return redisconn.Do(ctx, c.log, "quarantine", func(ctx context.Context) error {
		return c.t.commands.LPush(ctx, c.t.keys.quarantine(d.Queue), quarantineRecord(reason, d.Raw)).Err()
	})
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
