package backends

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
)

// A task that is watched is asked for at once, again after pollMin, and then after pauses that grow by a half up to pollMax,
// which is the fixed pause of Celery's clients. All pauses end on a grid, so that what is watched from different moments on
// is asked for together.
const (
	pollMin   = 25 * time.Millisecond
	pollMax   = 500 * time.Millisecond
	pollGrid  = 25 * time.Millisecond
	pollBatch = 500 // tasks in one call of a Reader
)

// Reader reads what is stored of tasks and calls found with the document of each that has one. It tries for as long as
// ctx lives; its error ends the watches of these tasks.
type Reader func(ctx context.Context, ids []string, found func(id, text string)) error

// GetMany is Backend's, by a Reader.
func (read Reader) GetMany(ctx context.Context, d Decoder, ids ...string) ([]*protocol.ResultMeta, error) {
	texts := make(map[string]string, len(ids))
	for rest := ids; len(rest) > 0; {
		n := min(len(rest), pollBatch)
		if err := read(ctx, rest[:n], func(id, text string) { texts[id] = text }); err != nil {
			return nil, err
		}
		rest = rest[n:]
	}
	metas := make([]*protocol.ResultMeta, len(ids))
	for i, id := range ids {
		text, stored := texts[id]
		if !stored {
			metas[i] = Pending(id)
			continue
		}
		var err error
		if metas[i], err = d.Decode(id, []byte(text)); err != nil {
			return nil, err
		}
	}
	return metas, nil
}

// Poller is Watch for a driver whose store tells of nothing by itself: it asks again and again, in growing intervals, for
// what is watched, once for all watches of a backend. One goroutine does so, as long as something is watched.
type Poller struct {
	read    Reader
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	watched map[string]*polled
	round   *round // what asks now; nil while nothing is watched
}

// polled is one task and who waits for it.
type polled struct {
	inboxes []*Inbox
	pause   time.Duration // before it is asked for after next
	next    time.Time
}

// round is one life of the goroutine.
type round struct {
	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{} // one token: something is to be asked for at once
}

// NewPoller makes a Poller. Close must be called.
func NewPoller(read Reader) *Poller {
	return &Poller{read: read, watched: map[string]*polled{}}
}

// Watch is Backend's.
func (p *Poller) Watch(ctx context.Context, d Decoder, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		in, ids := NewInbox(ids)
		if err := p.join(in, ids); err != nil {
			yield(nil, err)
			return
		}
		defer p.leave(in, ids...)
		in.Run(ctx, d, func(id string) { p.leave(in, id) }, yield)
	}
}

func (p *Poller) join(in *Inbox, ids []string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if len(ids) == 0 {
		return nil
	}
	now := time.Now()
	for _, id := range ids {
		t := p.watched[id]
		if t == nil {
			t = &polled{}
			p.watched[id] = t
		}
		t.inboxes = append(t.inboxes, in)
		t.pause, t.next = pollMin, now
	}
	if p.round == nil {
		r := &round{wake: make(chan struct{}, 1)}
		r.ctx, r.stop = context.WithCancel(context.Background())
		p.round = r
		p.running.Go(func() { p.ask(r) })
	}
	select {
	case p.round.wake <- struct{}{}:
	default:
	}
	return nil
}

// leave makes an inbox hear no more of tasks. Leaving twice does nothing.
func (p *Poller) leave(in *Inbox, ids ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range ids {
		t := p.watched[id]
		if t == nil {
			continue
		}
		for i, other := range t.inboxes {
			if other == in {
				// A copy, because a batch that is being asked for may hold the old one.
				t.inboxes = append(append(make([]*Inbox, 0, len(t.inboxes)-1), t.inboxes[:i]...), t.inboxes[i+1:]...)
				break
			}
		}
		if len(t.inboxes) == 0 {
			delete(p.watched, id)
		}
	}
	if len(p.watched) == 0 && p.round != nil {
		p.round.stop()
		p.round = nil
	}
}

// ask is the goroutine.
func (p *Poller) ask(r *round) {
	defer r.stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-r.wake:
		case <-r.ctx.Done():
			return
		}
		batches, wait := p.due(time.Now())
		for _, b := range batches {
			if err := b.ask(r.ctx, p.read); err != nil && r.ctx.Err() == nil {
				b.fail(err)
			}
		}
		timer.Reset(wait)
	}
}

// batch is what one call of the Reader asks for, and who waited for it when it began: what was read before somebody came
// may be older than what they know.
type batch struct {
	ids     []string
	inboxes map[string][]*Inbox
}

// due takes what is to be asked for now, and tells how long to wait then.
func (p *Poller) due(now time.Time) (batches []batch, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := now.Add(pollMax)
	for id, t := range p.watched {
		if !t.next.After(now) {
			if len(batches) == 0 || len(batches[len(batches)-1].ids) == pollBatch {
				batches = append(batches, batch{inboxes: map[string][]*Inbox{}})
			}
			b := &batches[len(batches)-1]
			b.ids = append(b.ids, id)
			b.inboxes[id] = t.inboxes
			t.next = now.Add(t.pause).Truncate(pollGrid).Add(pollGrid)
			t.pause = min(t.pause*3/2, pollMax)
		}
		if t.next.Before(first) {
			first = t.next
		}
	}
	return batches, first.Sub(now)
}

func (b batch) ask(ctx context.Context, read Reader) error {
	absent := make(map[string]struct{}, len(b.ids))
	for _, id := range b.ids {
		absent[id] = struct{}{}
	}
	err := read(ctx, b.ids, func(id, text string) {
		delete(absent, id)
		for _, in := range b.inboxes[id] {
			in.Put(id, text)
		}
	})
	if err != nil {
		return err
	}
	for id := range absent {
		for _, in := range b.inboxes[id] {
			in.PutAbsent(id)
		}
	}
	return nil
}

func (b batch) fail(err error) {
	for _, inboxes := range b.inboxes {
		for _, in := range inboxes {
			in.Fail(err)
		}
	}
}

// Close ends the watches with [ErrClosed] and waits for what is being asked. Closing twice does nothing.
func (p *Poller) Close() {
	p.mu.Lock()
	p.closed = true
	for _, t := range p.watched {
		for _, in := range t.inboxes {
			in.Fail(ErrClosed)
		}
	}
	if p.round != nil {
		p.round.stop()
		p.round = nil
	}
	p.mu.Unlock()
	p.running.Wait()
}
