package redis

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/internal/redisconn"
)

const (
	publisherSlots = 2       // script calls under way at once; what comes meanwhile goes together in the next one
	publishChunk   = 500     // envelopes in one script call
	publishBytes   = 8 << 20 // bytes in one script call, unless one envelope is larger

	// markerLife is how long a slot's marker outlives its last batch. Trying again ends before: a batch repeated after its
	// marker is gone would be there twice.
	markerLife    = time.Hour
	longestTrying = markerLife - 5*time.Minute
)

// publisher sends batches, each exactly once even when a reply is lost. A slot is a sequence of numbered batches: only
// one is under way at a time, so the numbers reach Redis in order. A caller who finds a slot free sends by itself;
// callers who find none wait, and share the next call, so that many goroutines publishing one message each travel
// like one that publishes many.
type publisher struct {
	t  *redisTransport
	id string

	mu      sync.Mutex
	free    []*publisherSlot
	waiting []*push

	ctx    context.Context // done when the transport closes
	cancel context.CancelFunc
	shared sync.WaitGroup // calls made for several callers
}

type publisherSlot struct {
	marker   string
	seq      uint64
	doubtful bool // some reply was lost: a call may still be on its way, and needs the marker
}

// push is a caller that waits.
type push struct {
	ctx  context.Context
	out  []outgoing
	done chan pushed // capacity 1
}

type pushed struct {
	inDoubt bool
	err     error
}

func newPublisher(t *redisTransport) *publisher {
	p := &publisher{t: t, id: uuid.NewString()}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for i := range publisherSlots {
		p.free = append(p.free, &publisherSlot{marker: t.keys.publisher(p.id, i)})
	}
	return p
}

// close gives up on what is under way. It removes the markers that nothing on its way can need any more.
func (p *publisher) close() {
	p.cancel()
	p.shared.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var markers []string
	for _, slot := range p.free {
		if slot.seq > 0 && !slot.doubtful {
			markers = append(markers, slot.marker)
		}
	}
	if len(markers) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.t.commands.Unlink(ctx, markers...).Err() // else they expire
	}
}

// push sends at most a chunk and returns when Redis has it.
func (p *publisher) push(ctx context.Context, out []outgoing) (inDoubt bool, err error) {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		slot := p.free[n-1]
		p.free = p.free[:n-1]
		p.mu.Unlock()
		defer p.release(slot)
		refused, inDoubt, err := p.send(ctx, slot, out)
		if err == nil {
			err = refused.of(out)
		}
		return inDoubt, err
	}
	x := &push{ctx: ctx, out: out, done: make(chan pushed, 1)}
	p.waiting = append(p.waiting, x)
	p.mu.Unlock()
	select {
	case r := <-x.done:
		return r.inDoubt, r.err
	case <-ctx.Done():
		p.mu.Lock()
		i := slices.Index(p.waiting, x)
		if i >= 0 {
			p.waiting = slices.Delete(p.waiting, i, i+1)
		}
		p.mu.Unlock()
		return i < 0, context.Cause(ctx)
	}
}

// release hands a slot to those who wait, or puts it back.
func (p *publisher) release(slot *publisherSlot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 || p.ctx.Err() != nil {
		p.free = append(p.free, slot)
		for _, x := range p.waiting { // the transport closes
			x.done <- pushed{err: context.Cause(p.ctx)}
		}
		p.waiting = nil
		return
	}
	n, envelopes, size := 0, 0, 0
	for n < len(p.waiting) {
		x := p.waiting[n]
		for _, o := range x.out {
			size += len(o.envelope)
		}
		if envelopes += len(x.out); n > 0 && (envelopes > publishChunk || size > publishBytes) {
			break
		}
		n++
	}
	together := slices.Clone(p.waiting[:n])
	p.waiting = slices.Delete(p.waiting, 0, n)
	p.shared.Go(func() { p.sendShared(slot, together) })
}

// sendShared sends what several callers wait for. It goes on for as long as the most patient of them waits.
func (p *publisher) sendShared(slot *publisherSlot, together []*push) {
	defer p.release(slot)
	ctx, cancel := context.WithTimeout(p.ctx, patience(together))
	defer cancel()
	out := make([]outgoing, 0, len(together))
	for _, x := range together {
		out = append(out, x.out...)
	}
	refused, inDoubt, err := p.send(ctx, slot, out)
	for _, x := range together {
		r := pushed{inDoubt, err}
		if err == nil {
			r.err = refused.of(x.out)
		}
		x.done <- r
	}
}

// patience is the longest time any of the callers has.
func patience(together []*push) (longest time.Duration) {
	for _, x := range together {
		limit, ok := x.ctx.Deadline()
		if !ok {
			return longestTrying
		}
		longest = max(longest, time.Until(limit))
	}
	return longest
}

// refusals are the lists that took nothing, with why.
type refusals map[string]string

// of is the error of the first of these envelopes that was refused.
func (r refusals) of(out []outgoing) error {
	for _, o := range out {
		if why, ok := r[o.list]; ok {
			return fmt.Errorf("push to list %q: %s", o.list, why)
		}
	}
	return nil
}

// send makes one script call and repeats it, under the same number, until Redis has answered.
func (p *publisher) send(ctx context.Context, slot *publisherSlot, out []outgoing) (refused refusals, inDoubt bool, err error) {
	// Messages of one list travel in one push; their order stays.
	if len(out) > 1 {
		slices.SortStableFunc(out, func(a, b outgoing) int { return cmp.Compare(a.list, b.list) })
	}
	slot.seq++
	keys := make([]string, 1, 2)
	keys[0] = slot.marker
	args := make([]any, 0, len(out)+3)
	args = append(args, strconv.FormatUint(slot.seq, 10), int(markerLife/time.Second))
	for i := 0; i < len(out); {
		j := i
		for j < len(out) && out[j].list == out[i].list {
			j++
		}
		keys = append(keys, out[i].list)
		args = append(args, j-i)
		for ; i < j; i++ {
			args = append(args, out[i].envelope)
		}
	}
	var reply []any
	ctx, cancel := context.WithTimeout(ctx, longestTrying)
	defer cancel()
	err = redisconn.Do(ctx, p.t.log, "publish", func(ctx context.Context) error {
		var err error
		reply, err = publishScript.Run(ctx, p.t.commands, keys, args...).Slice()
		inDoubt = inDoubt || redisconn.InDoubt(err)
		return err
	})
	slot.doubtful = slot.doubtful || inDoubt
	if err != nil && len(keys) == 2 {
		err = fmt.Errorf("push to list %q: %w", keys[1], err)
	}
	for pair := range slices.Chunk(reply, 2) {
		if i, ok := pair[0].(int64); ok && len(pair) == 2 {
			if refused == nil {
				refused = refusals{}
			}
			refused[keys[i]] = fmt.Sprint(pair[1])
		}
	}
	return refused, inDoubt, err
}

// chunk tells how many of the envelopes go in one script call.
func chunk(out []outgoing) int {
	n, size := 0, 0
	for n < len(out) && n < publishChunk {
		if size += len(out[n].envelope); n > 0 && size > publishBytes {
			break
		}
		n++
	}
	return n
}
