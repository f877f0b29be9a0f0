package task

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// probe is a transport that keeps what is published, so that a message can be read as it was handed to the broker.
type probe struct {
	transport.Transport // nil: a method not written here panics

	mu        sync.Mutex
	published [][]transport.Publication
	declared  []transport.Queue
	deadline  time.Time // of the last Publish
	err       error
}

func (p *probe) Publish(ctx context.Context, batch []transport.Publication) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var ok bool
	if p.deadline, ok = ctx.Deadline(); !ok {
		return errors.New("publish without a deadline")
	}
	if p.err != nil {
		return p.err
	}
	p.published = append(p.published, batch)
	return nil
}

func (p *probe) Declare(_ context.Context, q transport.Queue) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declared = append(p.declared, q)
	return nil
}

// last returns the last message as a worker reads it, and where it went.
func (p *probe) last(t *testing.T) (*protocol.Request, transport.Publication) {
	t.Helper()
	batch := p.published[len(p.published)-1]
	pub := batch[len(batch)-1]
	accept, err := serialization.NewAccept("json", "msgpack", "yaml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := protocol.DecodeRequest(pub.Message, accept)
	if err != nil {
		t.Fatal(err)
	}
	return r, pub
}

func probeClient(t *testing.T, c Config) (*Client, *probe) {
	t.Helper()
	p := &probe{}
	client, err := NewClient(p, nil, c)
	if err != nil {
		t.Fatal(err)
	}
	return client, p
}

// silent is a transport whose broker never answers.
type silent struct{ probe }

func (*silent) Publish(ctx context.Context, _ []transport.Publication) error {
	<-ctx.Done()
	return &transport.PublishError{URL: "redis://h/0", Err: ctx.Err()}
}
