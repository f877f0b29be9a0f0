package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/transport"
)

// ApplyOnce sends signatures that may have been sent before, from here or from another machine: each has an [ID], from which the ids
// of all its tasks follow. Where the broker can tell (Redis, for a quarter of an hour) what it has is not sent again;
// elsewhere the messages are there twice, with the same ids. It is how beat sends.
//
// It returns an error for each signature, nil for what the broker has. What cannot be sent keeps nothing else back.
func (c *Client) ApplyOnce(ctx context.Context, batch []Signature) []error {
	errs := make([]error, len(batch))
	owners, alone, err := c.applyOnce(ctx, batch)
	if err != nil {
		c.blame(ctx, batch, owners, alone, errs, err)
	}
	for _, i := range alone { // a backend that is away holds up nothing else
		copy(errs[i:], c.ApplyOnce(ctx, batch[i:i+1]))
	}
	return errs
}

// blame finds out which signatures of a batch were not sent, and why.
func (c *Client) blame(ctx context.Context, batch []Signature, owners, alone []int, errs []error, err error) {
	again := make([]bool, len(batch))
	final := func(err error) bool { return ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) }
	fail := func(i int, err error) {
		errs[i] = fmt.Errorf("apply %s: %w", either(batch[i].Name(), "signature"), err)
		again[i] = len(batch) > 1 && final(err)
	}
	if p, ok := errors.AsType[*transport.PublishError](err); ok && p.Failed != nil {
		for place, why := range p.Failed { // the broker has all others
			fail(owners[place], &transport.PublishError{URL: p.URL, InDoubt: !final(why), Err: why})
		}
	} else {
		for i := range batch {
			if !slices.Contains(alone, i) {
				fail(i, err)
			}
		}
	}
	for i := range batch {
		if again[i] {
			copy(errs[i:], c.ApplyOnce(ctx, batch[i:i+1]))
		}
	}
}

// applyOnce sends signatures together. It returns which of them each message is of, and those that are to be sent alone: chords that
// are announced to the backend before.
func (c *Client) applyOnce(ctx context.Context, batch []Signature) (owners, alone []int, err error) {
	origin := canvas.Origin{HeaderErrbacks: c.config.HeaderErrbacks} // no reply: nobody waits for it
	var calls []Call
	var sizes []backends.ChordSize
	for i, sig := range batch {
		wire, err := sig.Wire()
		if err != nil {
			return nil, nil, err
		}
		id, _ := wire.Options["task_id"].(string)
		if id == "" {
			return nil, nil, errors.New("it has no id")
		}
		n := 0
		origin.NewID = func() string { n++; return protocol.DerivedID(id, strconv.Itoa(n)) }
		x, err := canvas.Expand(wire, origin)
		if err != nil {
			return nil, nil, err
		}
		some, chords, err := c.calls(x)
		if err != nil {
			return nil, nil, err
		}
		if len(chords) > 0 && len(batch) > 1 {
			alone = append(alone, i)
			continue
		}
		for range some {
			owners = append(owners, i)
		}
		calls, sizes = append(calls, some...), append(sizes, chords...)
	}
	if err := c.announce(ctx, sizes); err != nil {
		return nil, nil, err
	}
	for i := range calls {
		calls[i].once = true
	}
	for first := 0; first < len(calls); first += applyBatch {
		last := min(first+applyBatch, len(calls))
		if _, err := c.sendBatch(ctx, calls[first:last]); err != nil {
			if p, ok := errors.AsType[*transport.PublishError](err); ok && last < len(calls) {
				err = &transport.PublishError{URL: p.URL, InDoubt: true, Err: p.Err} // the others were not sent
			}
			return owners[first:], alone, err
		}
	}
	return owners, alone, nil
}
