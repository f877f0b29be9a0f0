package task

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// RevokeOption is an option of a revocation.
type RevokeOption func(*revocation)

type revocation struct {
	terminate bool
	signal    string
}

// Terminate ends the task also if it runs already: Celery's terminate=True. A Python worker sends the signal, "SIGTERM" if
// it is empty, to the process that runs it. A Go worker cancels the task's context with the cause [ErrRevoked] and stores
// REVOKED at once; whatever the signal, a process pool kills the child.
func Terminate(signal string) RevokeOption {
	return func(r *revocation) { r.terminate, r.signal = true, either(signal, defaultSignal) }
}

// mostRevoked is how many ids one message names: workers refuse one that is too large.
const mostRevoked = 20_000

const defaultSignal = "SIGTERM"

// Revoke tells all workers, Python's and Go's, not to run the tasks of the ids: Celery's control.revoke. One that has not
// begun ends as REVOKED when its turn comes, on a Go worker at once where it waits for its eta. One that runs is left
// alone without [Terminate]. A retry has the id of its first run, so revoking it ends the retries.
//
// It returns when the broker has the message, without waiting for the workers. On Redis it is also kept by the broker for
// Go workers that are away now, the newest 50,000 ids for a week. A Python worker that is away learns of it from its
// neighbours only.
func (c *Client) Revoke(ctx context.Context, ids []string, opts ...RevokeOption) error {
	for _, id := range ids {
		if id == "" {
			return errors.New("revoke: an id is empty")
		}
	}
	for some := range slices.Chunk(ids, mostRevoked) {
		if err := c.revoke(ctx, "revoke", map[string]any{"task_id": some}, transport.RevokedSet, some, opts); err != nil {
			return err
		}
	}
	return nil
}

// RevokeByStampedHeaders is [Client.Revoke] for all tasks that carry one of the stamps, each a header with the values that
// are meant: Celery's control.revoke_by_stamped_headers, of 5.3 and later. It holds for tasks sent later, too, as long as
// it is kept.
func (c *Client) RevokeByStampedHeaders(ctx context.Context, headers map[string][]string, opts ...RevokeOption) error {
	var members []string
	for header, values := range headers {
		for _, v := range values {
			m, err := protocol.StampMember(header, v)
			if err != nil {
				return fmt.Errorf("revoke: %w", err)
			}
			members = append(members, m)
		}
	}
	if len(members) == 0 {
		return nil
	}
	return c.revoke(ctx, "revoke_by_stamped_headers", map[string]any{"headers": headers}, transport.RevokedStampsSet, members, opts)
}

// revoke keeps the members where the broker can, and then tells the workers: who comes in between reads what is kept.
func (c *Client) revoke(ctx context.Context, method string, arguments map[string]any, set string, members []string, opts []RevokeOption) error {
	if c.transport == nil {
		return ErrNoBroker
	}
	r := revocation{signal: defaultSignal}
	for _, o := range opts {
		o(&r)
	}
	arguments["terminate"], arguments["signal"] = r.terminate, r.signal
	s, ok := serialization.Lookup(c.config.Serializer)
	if !ok {
		return fmt.Errorf("revoke: serializer %q is unknown", c.config.Serializer)
	}
	m, err := (&protocol.PidboxRequest{Method: method, Arguments: arguments}).Message(s)
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.PublishTimeout)
	defer cancel()
	if keeper, ok := c.transport.(transport.Keeper); ok {
		if err := keeper.Remember(ctx, set, members, transport.DefaultRevokedBounds); err != nil {
			return fmt.Errorf("revoke: %w", err)
		}
	}
	err = c.transport.Broadcast(ctx, protocol.PidboxExchange, "", m)
	if e, ok := errors.AsType[*transport.PublishError](err); ok && e.InDoubt { // a worker that has heard it may hear it again
		err = c.transport.Broadcast(ctx, protocol.PidboxExchange, "", m)
	}
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

// Revoke is [Client.Revoke] of this task, or of all tasks of the group: Celery's AsyncResult.revoke.
func (h handle) Revoke(ctx context.Context, opts ...RevokeOption) error {
	return h.client.Revoke(ctx, h.tasks(nil), opts...)
}
