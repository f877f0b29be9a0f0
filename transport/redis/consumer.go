package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// maxClaim bounds one claim: Lua's unpack carries a few thousand values at most.
const maxClaim = 256

// maxDoubtful bounds how many claims with a lost reply are asked for; the rest expire with their lease.
const maxDoubtful = 8

// consumer receives from a set of queues. Receive's caller owns the claim fields; the lease and sweep actors own
// themselves; held is shared under mu.
type consumer struct {
	t   *redisTransport
	log *slog.Logger
	id  string // of this consumer's tags: "gelery:<uuid>"

	// Receive's own.
	claims     uint64
	doubtful   []doubt // claims whose replies were lost, to be asked for
	rotate     int     // which queue stands first: round robin over calls
	complaints complaints

	mu      sync.Mutex
	held    map[string]*claimed // by tag
	sources *sources

	ctx       context.Context // done when the consumer closes
	cancel    context.CancelFunc
	actors    sync.WaitGroup
	receiving sync.Mutex    // held by Receive, so that Close can wait for the last claim
	claiming  chan struct{} // capacity 1: holds a token during a claim, and while the sources are replaced
}

// doubt is a claim whose reply was lost, and the place from which to ask what it took.
type doubt struct {
	claim string
	place int64
}

// claimed is a delivery under our lease.
type claimed struct {
	delivery transport.Delivery // our own copy: Begin changes the caller's
	settling bool               // a settlement is under way: its being gone from Redis is no loss
	begun    int                // the count that Begin has made; 0: it has not
}

// Consume implements transport.Transport.
func (t *redisTransport) Consume(ctx context.Context, o transport.ConsumeOptions) (transport.Consumer, error) {
	if len(o.Queues) == 0 {
		return nil, errors.New("no queue to consume from")
	}
	c := &consumer{t: t, log: t.log, id: tagPrefix + uuid.NewString(), held: map[string]*claimed{},
		claiming: make(chan struct{}, 1)}
	c.complaints.c = c
	var queues []string
	for _, q := range o.Queues {
		if slices.Contains(queues, q.Name) {
			continue
		}
		if err := t.Declare(ctx, q); err != nil {
			return nil, err
		}
		queues = append(queues, q.Name)
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.sources = c.newSources(queues)
	c.actors.Go(c.renewLeases)
	c.actors.Go(c.sweep)
	c.actors.Go(c.keepTime)
	return c, nil
}

// Receive implements transport.Consumer.
func (c *consumer) Receive(ctx context.Context, max int) ([]transport.Delivery, error) {
	c.receiving.Lock()
	defer c.receiving.Unlock()
	var backoff redisconn.Backoff
	for {
		if c.ctx.Err() != nil {
			return nil, transport.ErrClosed
		}
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		c.claiming <- struct{}{}
		s := c.source()
		batch, err := c.claim(ctx, s, max)
		<-c.claiming
		switch {
		case err != nil && ctx.Err() == nil && c.ctx.Err() == nil:
			c.complaints.about("receive", err)
			if backoff.Wait(ctx) != nil {
				return nil, context.Cause(ctx)
			}
		case len(batch) > 0:
			return batch, nil
		case err == nil:
			backoff = redisconn.Backoff{}
			s.waker.wait(ctx)
		}
	}
}

// complaints logs an actor's trouble, at most every ten seconds: it may repeat many times a second.
type complaints struct {
	c    *consumer
	last time.Time
}

func (x *complaints) about(what string, err error) {
	if now := time.Now(); now.Sub(x.last) > 10*time.Second {
		x.last = now
		x.c.log.Error(what+" goes on trying", "broker", x.c.t.conn.Redacted(), "error", err)
	}
}

// claim runs the claim script once and registers what came.
func (c *consumer) claim(ctx context.Context, s *sources, max int) ([]transport.Delivery, error) {
	c.claims++
	share := 0
	if c.t.options.strategy == roundRobin {
		share = 1
		c.rotate++
	}
	nq, ns := len(s.served), len(c.t.keys.steps)
	order := make([]string, nq) // the queues as the script counts them
	keys := make([]string, 2+nq*(ns+1))
	claim := c.id + ":" + strconv.FormatUint(c.claims, 10)
	args := make([]any, 5, 5+nq+2*len(c.doubtful))
	args[0], args[1], args[2], args[3], args[4] = claim, min(max, maxClaim), nq, ns, share
	keys[0], keys[1] = c.t.keys.unackedKey(), c.t.keys.unackedIndexKey()
	for i := range nq {
		q := (i + c.rotate) % nq
		order[i] = s.served[q]
		for n, step := range c.t.keys.steps {
			keys[2+n*nq+i] = c.t.keys.list(order[i], step)
		}
		keys[2+ns*nq+i] = c.t.keys.quarantine(order[i])
		args = append(args, s.names[q])
	}
	for _, d := range c.doubtful {
		args = append(args, d.claim, d.place)
	}
	attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	reply, err := claimScript.Run(attempt, c.t.commands, keys, args...).Slice()
	if err != nil {
		if redisconn.InDoubt(err) && len(c.doubtful) < maxDoubtful {
			c.doubtful = append(c.doubtful, doubt{claim, 1})
		}
		return nil, err
	}
	if len(reply) != 3 {
		return nil, fmt.Errorf("claim script answered %d values", len(reply))
	}
	places, _ := reply[2].([]any)
	for i := range min(len(places), len(c.doubtful)) {
		c.doubtful[i].place, _ = places[i].(int64)
	}
	c.doubtful = slices.DeleteFunc(c.doubtful, func(d doubt) bool { return d.place == 0 })
	return c.register(reply, order)
}

// register turns the script's reply into deliveries and puts them under the lease.
func (c *consumer) register(reply []any, order []string) ([]transport.Delivery, error) {
	messages, _ := reply[0].([]any)
	bad, _ := reply[1].([]any)
	batch := make([]transport.Delivery, 0, len(messages))
	for _, m := range messages {
		f, _ := m.([]any)
		if len(f) != 3 {
			return nil, fmt.Errorf("claim script answered a message of %d fields", len(f))
		}
		tag, _ := f[0].(string)
		n, _ := f[1].(int64)
		raw, _ := f[2].(string)
		if tag == "" {
			c.log.Error("message quarantined", "queue", order[n-1], "reason", "not an envelope", "bytes", len(raw))
			continue
		}
		d := transport.Delivery{Tag: tag, Raw: []byte(raw)}
		if n > 0 {
			d.Queue = order[n-1]
		} else { // the whole value, of a claim whose first reply was lost
			var ok bool
			if d.Raw, d.Queue, ok = splitRecord(d.Raw); !ok {
				continue
			}
		}
		d.Message, d.Err = protocol.DecodeEnvelope(d.Raw)
		if d.Message != nil {
			d.Redelivered = d.Message.Headers.Redelivered || d.Message.Properties.DeliveryInfo.Redelivered
		}
		batch = append(batch, d)
	}
	c.mu.Lock()
	for i := range batch {
		c.held[batch[i].Tag] = &claimed{delivery: batch[i]}
	}
	c.mu.Unlock()
	for _, b := range bad {
		if f, _ := b.([]any); len(f) == 2 {
			c.complaints.about(fmt.Sprintf("receive from %v", f[0]), fmt.Errorf("%v", f[1]))
		}
	}
	return batch, nil
}

// Close implements transport.Consumer.
func (c *consumer) Close(ctx context.Context) error {
	c.cancel()
	c.claiming <- struct{}{} // nobody replaces the sources any more
	c.source().waker.close()
	<-c.claiming
	c.receiving.Lock() // the last claim has been registered
	defer c.receiving.Unlock()
	c.actors.Wait()
	c.mu.Lock()
	batch := make([]transport.Settlement, 0, len(c.held))
	for _, h := range c.held {
		d := h.delivery
		batch = append(batch, transport.Settlement{Delivery: &d, Verdict: transport.Return})
	}
	c.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	_, err := c.Settle(ctx, batch)
	return err
}
