package task

import (
	"context"
	"errors"
	"fmt"
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
	owners, err := c.applyOnce(ctx, batch)
	if err == nil {
		return errs
	}
	again := make([]bool, len(batch)) // whose fault is it?
	p, published := errors.AsType[*transport.PublishError](err)
	for i := range batch {
		errs[i] = fmt.Errorf("apply %s: %w", either(batch[i].Name(), "signature"), err)
		again[i] = ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded)
	}
	if published && p.Refused != nil && len(batch) > 1 {
		clear(again)
		for place := range p.Refused {
			again[owners[place]] = true
		}
		for i := range batch {
			if !again[i] {
				errs[i] = nil // the broker has it
			}
		}
	}
	for i := range batch {
		if again[i] && len(batch) > 1 {
			copy(errs[i:], c.ApplyOnce(ctx, batch[i:i+1]))
		}
	}
	return errs
}

// applyOnce sends signatures together. It returns which of them each message is of.
func (c *Client) applyOnce(ctx context.Context, batch []Signature) (owners []int, err error) {
	origin := canvas.Origin{HeaderErrbacks: c.config.HeaderErrbacks} // no reply: nobody waits for it
	var calls []Call
	var sizes []backends.ChordSize
	for i, sig := range batch {
		wire, err := sig.Wire()
		if err != nil {
			return nil, err
		}
		id, _ := wire.Options["task_id"].(string)
		if id == "" {
			return nil, errors.New("it has no id")
		}
		n := 0
		origin.NewID = func() string { n++; return protocol.DerivedID(id, strconv.Itoa(n)) }
		x, err := canvas.Expand(wire, origin)
		if err != nil {
			return nil, err
		}
		some, chords, err := c.calls(x)
		if err != nil {
			return nil, err
		}
		for range some {
			owners = append(owners, i)
		}
		calls, sizes = append(calls, some...), append(sizes, chords...)
	}
	if err := c.announce(ctx, sizes); err != nil {
		return nil, err
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
			return owners[first:], err
		}
	}
	return owners, nil
}
