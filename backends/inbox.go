package backends

import (
	"context"
	"sync"

	"github.com/gelery/gelery/protocol"
)

// Inbox is one running Watch as a driver sees it: the driver puts in what it hears, whoever ranges over the Watch takes
// it out. Putting never blocks, because only the latest document of each task is kept; so an Inbox holds at most one
// document for each task watched.
type Inbox struct {
	wake chan struct{} // one token: something is there

	mu    sync.Mutex
	err   error
	tasks map[string]*inboxTask // those not ready yet
	queue []*inboxTask          // in the order they were put; each at most once
}

type inboxTask struct {
	id     string
	queued bool
	put    document // the latest, if queued
	seen   document // the last one taken out
}

type document struct {
	text   string
	stored bool // false: nothing is stored
	known  bool // false: never heard of
}

// NewInbox makes an Inbox for the tasks and returns their ids without repetition.
func NewInbox(ids []string) (*Inbox, []string) {
	in := &Inbox{wake: make(chan struct{}, 1), tasks: make(map[string]*inboxTask, len(ids))}
	unique := make([]string, 0, len(ids))
	for _, id := range ids {
		if _, dup := in.tasks[id]; !dup {
			in.tasks[id] = &inboxTask{id: id}
			unique = append(unique, id)
		}
	}
	return in, unique
}

// Put tells what is stored of a task now. The same again is dropped.
func (in *Inbox) Put(id, text string) { in.put(id, document{text: text, stored: true, known: true}) }

// PutAbsent tells that nothing is stored of a task. It counts only before the first Put: what expires or is forgotten
// while somebody waits does not become PENDING again.
func (in *Inbox) PutAbsent(id string) { in.put(id, document{known: true}) }

// Fail ends the Watch with an error, after what was put before.
func (in *Inbox) Fail(err error) {
	in.mu.Lock()
	if in.err == nil {
		in.err = err
	}
	in.mu.Unlock()
	in.signal()
}

func (in *Inbox) put(id string, d document) {
	in.mu.Lock()
	t := in.tasks[id]
	if t == nil || !t.accepts(d) {
		in.mu.Unlock()
		return
	}
	t.put = d
	if !t.queued {
		t.queued = true
		in.queue = append(in.queue, t)
	}
	in.mu.Unlock()
	in.signal()
}

func (t *inboxTask) accepts(d document) bool {
	if t.queued {
		return d.stored && d != t.put
	}
	return d != t.seen && (d.stored || !t.seen.known)
}

func (in *Inbox) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// Decoder reads a document that was Put. Codec is one; its errors are *DecodeError.
type Decoder interface {
	Decode(id string, data []byte) (*protocol.ResultMeta, error)
}

// Run yields the metas until every task is ready, ctx is done, the Watch failed or yield returns false. It calls left
// for each task as soon as it is ready, so that the driver can stop listening for it.
func (in *Inbox) Run(ctx context.Context, c Decoder, left func(id string), yield func(*protocol.ResultMeta, error) bool) {
	for open := len(in.tasks); open > 0; {
		select {
		case <-in.wake:
		case <-ctx.Done():
			yield(nil, context.Cause(ctx))
			return
		}
		news, failed := in.take()
		for _, n := range news {
			m := Pending(n.id)
			if n.stored {
				var err error
				if m, err = c.Decode(n.id, []byte(n.text)); err != nil {
					yield(nil, err)
					return
				}
			}
			if m.Status.Ready() {
				in.finish(n.id)
				left(n.id)
				open--
			}
			if !yield(m, nil) {
				return
			}
		}
		if failed != nil && open > 0 {
			yield(nil, failed)
			return
		}
	}
}

type news struct {
	id string
	document
}

func (in *Inbox) take() ([]news, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	out := make([]news, len(in.queue))
	for i, t := range in.queue {
		out[i] = news{t.id, t.put}
		t.queued, t.seen, t.put = false, t.put, document{}
	}
	in.queue = in.queue[:0]
	return out, in.err
}

func (in *Inbox) finish(id string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.tasks, id)
}
