package backendstest

import (
	"context"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// circle makes the backends opened on one broker look like backends that share a store: what one of them stores is sent
// to the reply queues of all.
type circle struct {
	mu      sync.Mutex
	members []*member
}

// member is a backend of a circle. As a client does when it sends a task, it expects what is stored and watched.
type member struct {
	backends.Backend
	backends.Replier
	t      testing.TB
	circle *circle
}

// replying opens backends as members of one circle.
func replying(open Opener) Opener {
	c := &circle{}
	return func(t testing.TB, o backends.Options) backends.Backend {
		t.Helper()
		b := open(t, o)
		r, ok := b.(backends.Replier)
		if !ok {
			t.Fatalf("%T is not a backends.Replier", b)
		}
		m := &member{Backend: b, Replier: r, t: t, circle: c}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.members = append(c.members, m)
		return m
	}
}

// Store returns when every member has heard of the batch: a message sent behind it has arrived.
func (m *member) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	m.circle.mu.Lock()
	members := slices.Clone(m.circle.members)
	m.circle.mu.Unlock()
	behind := &protocol.ResultMeta{TaskID: protocol.NewID(), Status: protocol.Success}
	for _, to := range members {
		ids := []string{behind.TaskID}
		for _, r := range batch {
			ids = append(ids, r.TaskID)
		}
		replyTo, err := to.Expect(ctx, ids...)
		if err != nil {
			if to == m {
				return err // it is closed
			}
			continue
		}
		sent := make([]*protocol.ResultMeta, 0, len(batch))
		for _, r := range batch {
			addressed := *r
			addressed.ReplyTo = replyTo
			sent = append(sent, &addressed)
		}
		if err := m.Backend.Store(ctx, sent); err != nil {
			return err
		}
		last := *behind
		last.ReplyTo = replyTo
		if err := m.Backend.Store(ctx, []*protocol.ResultMeta{&last}); err != nil {
			return err
		}
		for r, err := range to.Backend.Watch(ctx, last.TaskID) {
			if err != nil && ctx.Err() != nil {
				m.t.Errorf("nothing arrived in %s: %v", replyTo, err)
				return err
			}
			if err != nil || r.Status.Ready() { // a member that cannot read the serializer has heard of it nevertheless
				break
			}
		}
	}
	return nil
}

func (m *member) Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		if _, err := m.Expect(ctx, ids...); err != nil {
			yield(nil, err)
			return
		}
		m.Backend.Watch(ctx, ids...)(yield)
	}
}
