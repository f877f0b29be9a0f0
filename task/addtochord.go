package task

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// AddToChord sends a signature as one more part of the chord that the task running in ctx is a part of: Celery's
// add_to_chord. The chord's body waits for it too, and gets its result right after or before the task's own.
//
// The ids of what is sent follow from the running task's message and from what is called. So a run that comes again, because its
// worker died, adds no second part but sends the same one, and the chord waits for no part that was never sent. It must add
// what the run before has added, with no argument that is random or the time of the run: that would be another part, and the chord
// would wait for the first. Parts that are alike may be added any number of times. A retry ([Retry]) is a message of its
// own and adds further parts, as in Celery.
//
// It needs a backend that counts the parts of chords, as Redis does: otherwise the error is [errors.ErrUnsupported].
func AddToChord(ctx context.Context, sig Signature, opts ...SendOption) (*Result[any], error) {
	info, ok := FromContext(ctx)
	if !ok || info.Client == nil || info.Embed.Chord == nil || info.Group == "" {
		return nil, errors.New("add to chord: not in a task that is a part of a chord")
	}
	counter, ok := info.Client.backend.(backends.ChordCounter)
	if !ok {
		return nil, fmt.Errorf("add to chord: the result backend does not count the parts of chords: %w", errors.ErrUnsupported)
	}
	frozen, growth, err := info.partOfChord(sig.With(opts...))
	if err != nil {
		return nil, fmt.Errorf("add to chord: %w", err)
	}
	if err := counter.GrowChord(ctx, growth); err != nil {
		return nil, fmt.Errorf("add to chord: %w", err)
	}
	r, err := info.Client.Apply(ctx, frozen)
	if p, sent := errors.AsType[*transport.PublishError](err); err != nil && (!sent || !p.InDoubt) {
		err = errors.Join(err, counter.ShrinkChord(ctx, growth)) // which else would wait for it
	}
	return r, err
}

// partOfChord makes a signature a part of the running task's chord, with ids that are the same when the task runs again.
func (i *Info) partOfChord(sig Signature) (Signature, backends.ChordGrowth, error) {
	none := backends.ChordGrowth{}
	wire, err := sig.change().Wire()
	if err != nil {
		return sig, none, err
	}
	what, err := serialization.AppendJSON(nil, []any{wire.Task, wire.Args, wire.Kwargs}) // options may hold the time
	if err != nil {
		return sig, none, err
	}
	call := i.DerivedID("add to chord", string(what))
	call = protocol.DerivedID(call, strconv.Itoa(i.countAdded(call)))
	wire.Options["group_id"], wire.Options["chord"] = i.Group, i.Embed.Chord.Value()
	if i.GroupIndex != nil {
		wire.Options["group_index"] = int64(*i.GroupIndex)
	}
	n := 0
	frozen, result, err := canvas.Freeze(wire, "", canvas.Origin{NewID: func() string {
		n++
		return protocol.DerivedID(call, strconv.Itoa(n))
	}})
	if err != nil {
		return sig, none, err
	}
	size, err := canvas.Size(frozen)
	if err != nil {
		return sig, none, err
	}
	return SignatureOf(frozen), backends.ChordGrowth{Group: i.Group, Part: result.ID, Size: size, By: protocol.NewID()}, nil
}

// countAdded counts the calls of AddToChord that are alike.
func (i *Info) countAdded(call string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.added == nil {
		i.added = map[string]int{}
	}
	i.added[call]++
	return i.added[call]
}
