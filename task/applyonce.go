package task

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
)

// ApplyOnce sends signatures that may have been sent before, from here or from another machine: each has an [ID], from which the ids
// of all its tasks follow. Where the broker can tell (Redis, for a quarter of an hour) what it has is not sent again;
// elsewhere the messages are there twice, with the same ids. It is how beat sends.
//
// It returns an error for each signature, nil for what the broker has. What cannot be sent keeps nothing else back.
func (c *Client) ApplyOnce(ctx context.Context, batch []Signature) []error {
	errs := make([]error, len(batch))
	if err := c.applyOnce(ctx, batch); err == nil {
		return errs
	} else if len(batch) == 1 || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		for i := range errs {
			errs[i] = fmt.Errorf("apply %s: %w", either(batch[i].Name(), "signature"), err)
		}
		return errs
	}
	for i := range batch { // whose fault is it?
		copy(errs[i:], c.ApplyOnce(ctx, batch[i:i+1]))
	}
	return errs
}

func (c *Client) applyOnce(ctx context.Context, batch []Signature) error {
	origin := canvas.Origin{HeaderErrbacks: c.config.HeaderErrbacks} // no reply: nobody waits for it
	together := &canvas.Expansion{}
	for _, sig := range batch {
		wire, err := sig.Wire()
		if err != nil {
			return err
		}
		id, _ := wire.Options["task_id"].(string)
		if id == "" {
			return errors.New("it has no id")
		}
		n := 0
		origin.NewID = func() string { n++; return protocol.DerivedID(id, strconv.Itoa(n)) }
		x, err := canvas.Expand(wire, origin)
		if err != nil {
			return err
		}
		together.Tasks = append(together.Tasks, x.Tasks...)
		together.Chords = append(together.Chords, x.Chords...)
	}
	calls, sizes, err := c.calls(together)
	if err != nil {
		return err
	}
	if err := c.announce(ctx, sizes); err != nil {
		return err
	}
	for i := range calls {
		calls[i].once = true
	}
	_, err = c.sendCalls(ctx, calls)
	return err
}
