package task

import (
	"context"
	"fmt"
	"iter"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
)

// ApplyGroup sends a group whose members are made one after the other, a thousand at a time, so that a group of any size
// takes little memory: only the ids stay. Options are set on each member. A member that cannot be sent ends it with an
// error; those before it may have been sent, and the result that is returned beside the error has them.
func (c *Client) ApplyGroup(ctx context.Context, members iter.Seq[Signature], opts ...SendOption) (*GroupResult[any], error) {
	result := protocol.ResultTuple{ID: protocol.NewID(), Children: []protocol.ResultTuple{}}
	batch := make([]Signature, 0, applyBatch)
	flush := func() error {
		sent, err := c.applyMembers(ctx, result.ID, len(result.Children), batch)
		result.Children = append(result.Children, sent...)
		batch = batch[:0]
		return err
	}
	var err error
	for sig := range members {
		if batch = append(batch, sig.With(opts...)); len(batch) == applyBatch {
			if err = flush(); err != nil {
				break
			}
		}
	}
	if err == nil && len(batch) > 0 {
		err = flush()
	}
	if info, ok := FromContext(ctx); ok {
		info.addChild(result)
	}
	group, _ := (&Result[any]{c.handleOf(&result)}).Group()
	if err != nil {
		return group, fmt.Errorf("apply group: %w", err)
	}
	return group, nil
}

// applyMembers sends some members of a group, the first of which has the index.
func (c *Client) applyMembers(ctx context.Context, group string, index int, members []Signature) ([]protocol.ResultTuple, error) {
	origin, err := c.origin(ctx)
	if err != nil {
		return nil, err
	}
	x := &canvas.Expansion{Result: protocol.ResultTuple{ID: group}}
	for i, sig := range members {
		wire, err := sig.change().Wire()
		if err != nil {
			return nil, fmt.Errorf("member %d: %w", index+i, err)
		}
		wire.Options["group_id"], wire.Options["group_index"] = group, int64(index+i)
		member, err := canvas.Expand(wire, origin)
		if err != nil {
			return nil, fmt.Errorf("member %d: %w", index+i, err)
		}
		x.Tasks, x.Chords = append(x.Tasks, member.Tasks...), append(x.Chords, member.Chords...)
		x.Result.Children = append(x.Result.Children, member.Result)
	}
	_, err = c.launch(ctx, x)
	return x.Result.Children, err
}
