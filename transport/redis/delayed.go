package redis

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/transport"
)

var _ transport.Delayer = (*consumer)(nil)

const (
	delayChunk = 200 // messages of one delayScript

	dueMost     = 500             // messages moved at once to one list
	dueRoom     = dueMost / 2     // and how many may stand in front then
	duePatience = 5 * time.Second // how long more than that are held back, if the lease allows it

	lookLatest  = 500 * time.Millisecond // how long a timekeeper sleeps at most, since others delay too
	lookSoonest = 10 * time.Millisecond  // and at least, so that what is due one after the other is moved together
	lookPause   = 100 * time.Millisecond // and at most after it has found nothing that it could move
)

// Worth implements transport.Delayer: to give a message back costs what it costs to hold it.
func (c *consumer) Worth(*transport.Delivery) time.Duration { return time.Second }

// Delay implements transport.Delayer. The messages stay in unacked, where the claim has recorded them; their lease is
// moved to their time, and the worker forgets them. Who is there then gives them back: a timekeeper of any consumer of
// the queue at once, the sweep of any other Go worker after the lease, Python's after its visibility timeout.
func (c *consumer) Delay(ctx context.Context, batch []transport.Delayed) (kept []transport.Delayed, err error) {
	for n := range (len(batch) + delayChunk - 1) / delayChunk {
		chunk := batch[n*delayChunk : min((n+1)*delayChunk, len(batch))]
		refused, err := c.delay(ctx, chunk)
		kept = append(kept, refused...)
		if err != nil {
			return append(kept, batch[n*delayChunk+len(chunk):]...), err
		}
	}
	if len(kept) > 0 {
		err = fmt.Errorf("the key of the delayed messages of queue %q is no sorted set", kept[0].Delivery.Queue)
	}
	return kept, err
}

// delay delays a chunk and returns those that could not be: with an error all of them.
func (c *consumer) delay(ctx context.Context, chunk []transport.Delayed) (kept []transport.Delayed, err error) {
	keys := append(make([]string, 0, len(chunk)+1), c.t.keys.unackedIndexKey())
	args := make([]any, 0, 2*len(chunk))
	var undecodable []transport.Delayed
	chunk = slices.DeleteFunc(slices.Clone(chunk), func(d transport.Delayed) bool {
		if d.Delivery.Message == nil { // nobody knows its priority
			undecodable = append(undecodable, d)
			return true
		}
		keys = append(keys, c.t.keys.delayed(c.t.keys.listFor(d.Delivery.Queue, &d.Delivery.Message.Properties)))
		args = append(args, d.Delivery.Tag, strconv.FormatFloat(d.After.Seconds(), 'f', 6, 64))
		return false
	})
	if len(chunk) == 0 {
		return undecodable, nil
	}
	c.leaving(chunk, true)
	var refused []int64
	run := func(ctx context.Context) (err error) {
		refused, err = delayScript.Run(ctx, c.t.commands, keys, args...).Int64Slice()
		return err
	}
	doubt := false
	err = redisconn.Do(ctx, c.log, "delay", func(ctx context.Context) error {
		err := run(ctx)
		doubt = doubt || redisconn.InDoubt(err)
		return err
	})
	if err != nil && doubt && ctx.Err() == nil { // they may be delayed: kept, they would run twice
		_, err = c.until(ctx, "delay", run)
	}
	if err != nil {
		c.leaving(chunk, false)
		return append(undecodable, chunk...), err
	}
	for _, i := range refused {
		kept = append(kept, chunk[i-1])
	}
	c.leaving(kept, false)
	tags := make([]any, 0, len(chunk))
	for i, d := range chunk {
		if !slices.Contains(refused, int64(i+1)) {
			tags = append(tags, d.Delivery.Tag)
		}
	}
	c.release(tags)
	return append(undecodable, kept...), nil
}

// leaving marks deliveries as settling does, or takes the mark away.
func (c *consumer) leaving(batch []transport.Delayed, leaves bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range batch {
		if h := c.held[d.Delivery.Tag]; h != nil {
			h.settling = leaves
		}
	}
}

// keepTime is the actor that gives back what has been delayed, by whomever, to the lists of the consumer's queues. It
// needs no lock: a timekeeper that finds another one was faster looks less often for a while.
func (c *consumer) keepTime() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	log := complaints{c: c}
	pause, expecting := lookSoonest, false
	for {
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			return
		}
		turn, err := c.moveDue(&log)
		switch {
		case err != nil:
			if c.ctx.Err() == nil {
				log.about("look for what is due", err)
			}
			turn.next = lookLatest
		case turn.moved > 0:
			pause = lookSoonest
		case turn.left || expecting:
			pause = min(2*pause, lookPause)
		}
		wait := min(max(turn.next, pause), lookLatest)
		expecting = turn.next < lookLatest
		timer.Reset(wait)
	}
}

// turn is what a timekeeper has found.
type turn struct {
	moved int
	left  bool          // something is due and was not moved
	next  time.Duration // until the next is due; lookLatest if nothing is, or not before
}

// moveDue runs dueScript once.
func (c *consumer) moveDue(log *complaints) (turn, error) {
	t := turn{next: lookLatest}
	s := c.source()
	if len(s.served) == 0 {
		return t, nil
	}
	keys := append(make([]string, 0, 2+2*len(s.served)*len(c.t.keys.steps)), c.t.keys.unackedKey(), c.t.keys.unackedIndexKey())
	for _, step := range c.t.keys.steps {
		for _, q := range s.served {
			list := c.t.keys.list(q, step)
			keys = append(keys, c.t.keys.delayed(list), list)
		}
	}
	patience := min(duePatience, c.t.options.lease/3)
	args := append([]any{dueMost, dueRoom, patience.Seconds(), len(s.served)}, s.names...)
	ctx, cancel := context.WithTimeout(c.ctx, 10*time.Second)
	defer cancel()
	reply, err := dueScript.Run(ctx, c.t.commands, keys, args...).Slice()
	if err != nil {
		return t, err
	}
	if len(reply) != 4 {
		return t, fmt.Errorf("the script that moves what is due answered %d values", len(reply))
	}
	moved, _ := reply[0].(int64)
	left, _ := reply[2].(int64)
	t.moved, t.left = int(moved), left > 0
	if next, _ := reply[1].(string); next != "" {
		if seconds, err := strconv.ParseFloat(next, 64); err == nil && seconds < lookLatest.Seconds() {
			t.next = time.Duration(seconds * float64(time.Second))
		}
	}
	if bad, _ := reply[3].([]any); len(bad) > 1 {
		log.about(fmt.Sprintf("move what is due by key %q", bad[0]), fmt.Errorf("%v", bad[1]))
	}
	return t, nil
}
