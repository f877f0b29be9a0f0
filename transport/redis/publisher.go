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
	publishChunk = 500     // envelopes in one script call
	publishBytes = 8 << 20 // bytes in one script call, unless one envelope is larger

	// markerLife is how long a publisher's marker outlives its last batch. Trying again ends before: a batch repeated
	// after its marker is gone would be there twice.
	markerLife    = time.Hour
	longestTrying = markerLife - 5*time.Minute
)

// publisher sends batches, each exactly once even when a reply is lost. Its batches are numbered, and one is under way at
// a time, so that the numbers reach Redis in order. A caller who finds it free sends by itself; callers who do not
// wait, and share the next call, so that many goroutines publishing one message each travel like one that publishes
// many.
type publisher struct {
	t      *redisTransport
	marker string // the key that holds the number of the last batch

	mu      sync.Mutex
	busy    bool // some goroutine sends: the fields below the line are its own
	waiting []*push

	ctx    context.Context // done when the transport closes
	cancel context.CancelFunc
	shared sync.WaitGroup // calls made for several callers

	// Owned by whoever sends.
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
	p := &publisher{t: t, marker: t.keys.publisher(uuid.NewString())}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// close gives up on what is under way. It removes the marker if nothing on its way can need it any more.
func (p *publisher) close() {
	p.cancel()
	p.shared.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.busy && p.seq > 0 && !p.doubtful {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.t.commands.Unlink(ctx, p.marker).Err() // else it expires
	}
}

// push sends at most a chunk and returns when Redis has it.
func (p *publisher) push(ctx context.Context, out []outgoing) (inDoubt bool, err error) {
	p.mu.Lock()
	if !p.busy {
		p.busy = true
		p.mu.Unlock()
		defer p.release()
		refused, inDoubt, err := p.send(ctx, out)
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

// release ends a call: it makes the next one for those who wait, if any.
func (p *publisher) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 || p.ctx.Err() != nil {
		p.busy = false
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
	p.shared.Go(func() { p.sendShared(together) })
}

// sendShared sends what several callers wait for. It goes on for as long as the most patient of them waits.
func (p *publisher) sendShared(together []*push) {
	defer p.release()
	ctx, cancel := context.WithTimeout(p.ctx, patience(together))
	defer cancel()
	out := make([]outgoing, 0, len(together))
	for _, x := range together {
		out = append(out, x.out...)
	}
	refused, inDoubt, err := p.send(ctx, out)
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
func (p *publisher) send(ctx context.Context, out []outgoing) (refused refusals, inDoubt bool, err error) {
	// Messages of one list travel in one push; their order stays.
	if len(out) > 1 {
		slices.SortStableFunc(out, func(a, b outgoing) int { return cmp.Compare(a.list, b.list) })
	}
	p.seq++
	keys := make([]string, 1, 2)
	keys[0] = p.marker
	args := make([]any, 0, len(out)+3)
	args = append(args, strconv.FormatUint(p.seq, 10), int(markerLife/time.Second))
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
		reply, err = publishScript.Run(ctx, p.t.publishes, keys, args...).Slice()
		inDoubt = inDoubt || redisconn.InDoubt(err)
		return err
	})
	p.doubtful = p.doubtful || inDoubt
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

// chunk tells how many of the envelopes go in one script call, which is of one kind.
func chunk(out []outgoing) int {
	n, size := 0, 0
	for n < len(out) && n < publishChunk && (out[n].once != "") == (out[0].once != "") {
		if size += len(out[n].envelope); n > 0 && size > publishBytes {
			break
		}
		n++
	}
	return n
}
