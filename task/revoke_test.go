package task

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// doubtful is a broker that loses its connection, and with it the first broadcasts or what would confirm them.
type doubtful struct {
	transport.Transport
	left int
}

func (d *doubtful) Broadcast(ctx context.Context, exchange, key string, m *protocol.Message) error {
	if d.left > 0 {
		d.left--
		return &transport.PublishError{InDoubt: true, Err: errors.New("no confirmation")}
	}
	return d.Transport.Broadcast(ctx, exchange, key, m)
}

// TestRevokeInDoubt: a revocation that may not have been heard is sent again, once.
func TestRevokeInDoubt(t *testing.T) {
	t.Parallel()
	ctx, dialed := dialMemory(t)
	d := &doubtful{Transport: dialed.Transport(), left: 1}
	client, err := NewClient(d, dialed.Backend(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got := revoked(ctx, t, client, func() error { return client.Revoke(ctx, []string{"a"}) }); !cmp.Equal([]any{"a"}, got) {
		t.Errorf("revoked %v", got)
	}
	d.left = 2
	if e, ok := errors.AsType[*transport.PublishError](client.Revoke(ctx, []string{"a"})); !ok || !e.InDoubt {
		t.Errorf("the error is %v; expected one that says it is in doubt", e)
	}
}
