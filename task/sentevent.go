package task

import (
	"context"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/protocol"
)

// sentEventTimeout bounds the sending of the event task-sent: who sends a task does not wait longer for it.
const sentEventTimeout = time.Second

// tellSent tells monitors of a batch that the broker has. The events of several calls are one message, as those of workers
// are. What cannot be sent is left out.
func (c *Client) tellSent(ctx context.Context, batch []outgoing) {
	if len(batch) == 0 {
		return
	}
	now := time.Now()
	var body []byte
	key := protocol.TaskMultiKey
	for i := range batch {
		e := &protocol.Event{Type: protocol.TaskSent, Hostname: c.config.Origin, UTCOffset: protocol.UTCOffset(now), PID: os.Getpid(),
			Clock: c.clock.Add(1), Timestamp: now, Fields: batch[i].sentFields()}
		separator := ", "
		if i == 0 {
			separator = "["
			if len(batch) == 1 {
				separator, key = "", e.RoutingKey()
			}
		}
		var err error
		if body, err = protocol.AppendEvent(append(body, separator...), e); err != nil {
			c.config.Logger.Error("event task-sent not sent", "task_id", batch[i].id, "error", err)
			return
		}
	}
	if len(batch) > 1 {
		body = append(body, ']')
	}
	ctx, cancel := context.WithTimeout(ctx, sentEventTimeout)
	defer cancel()
	if err := c.transport.Broadcast(ctx, c.config.EventExchange, key, protocol.NewEventMessage(c.config.Origin, body)); err != nil {
		c.config.Logger.Warn("event task-sent not sent", "tasks", len(batch), "error", err)
	}
}

// sentFuncs are the functions of OnSent. The list is replaced when it changes, so that whoever sends reads it without a lock.
type sentFuncs struct {
	mu  sync.Mutex
	all atomic.Pointer[[]*func(task, queue string)]
}

func (s *sentFuncs) load() []*func(task, queue string) {
	if all := s.all.Load(); all != nil {
		return *all
	}
	return nil
}

// change replaces the list by what is made of a copy.
func (s *sentFuncs) change(to func(all []*func(task, queue string)) []*func(task, queue string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := to(slices.Clone(s.load()))
	s.all.Store(&all)
}

// OnSent lets a function know the name and the queue of each call that the broker has: those that the event task-sent tells of,
// whether it is sent or not. The queue is "" if the exchange decides. The function must not take long, and is called by many at
// a time. There may be several; stop ends the calls of this one. A worker that is asked for metrics counts so while it runs:
// each worker of a client counts all that the client sends.
func (c *Client) OnSent(f func(task, queue string)) (stop func()) {
	c.onSent.change(func(all []*func(task, queue string)) []*func(task, queue string) { return append(all, &f) })
	return func() {
		c.onSent.change(func(all []*func(task, queue string)) []*func(task, queue string) {
			return slices.DeleteFunc(all, func(one *func(task, queue string)) bool { return one == &f })
		})
	}
}

// countSent calls the functions of OnSent for a batch that the broker has.
func (c *Client) countSent(batch []outgoing) {
	for _, f := range c.onSent.load() {
		for i := range batch {
			(*f)(batch[i].request.Task, batch[i].queue())
		}
	}
}

// sentFields are the fields of task-sent.
func (m *outgoing) sentFields() []protocol.EventField {
	r := m.request
	orNil := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return []protocol.EventField{{Name: "uuid", Value: r.ID}, {Name: "root_id", Value: orNil(r.RootID)}, {Name: "parent_id", Value: orNil(r.ParentID)},
		{Name: "name", Value: r.Task}, {Name: "args", Value: r.ArgsRepr}, {Name: "kwargs", Value: r.KwargsRepr}, {Name: "retries", Value: int64(r.Retries)},
		{Name: "eta", Value: orNil(r.ETA)}, {Name: "expires", Value: orNil(r.Expires)}, {Name: "queue", Value: orNil(m.queue())},
		{Name: "exchange", Value: m.publication.Exchange}, {Name: "routing_key", Value: m.publication.RoutingKey}}
}

// queue is the name of the queue that a message is for; "" if its exchange decides.
func (m *outgoing) queue() string {
	switch {
	case len(m.declare) == 1:
		return m.declare[0].Name
	case m.publication.Exchange == "":
		return m.publication.RoutingKey
	}
	return ""
}

// calls are those of the messages a worker sends for its tasks that are calls: attempts, and what follows a task. A message
// that it hands back unread is none, and of protocol 1 it would have to read the body.
func calls(batch []outgoing) []outgoing {
	all := make([]outgoing, 0, len(batch))
	for _, m := range batch {
		if h := &m.publication.Message.Headers; h.Task != "" && h.Hops() == 0 {
			m.request = &protocol.Request{Headers: *h}
			all = append(all, m)
		}
	}
	return all
}
