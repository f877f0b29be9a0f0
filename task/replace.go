package task

import (
	"context"
	"errors"
	"fmt"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/transport"
)

// ReplaceError is what [Replace] returns.
type ReplaceError struct{ With Signature }

func (e *ReplaceError) Error() string { return "task asked to be replaced by " + e.With.String() }

// Replace ends the task that returns it, and lets a signature take its place: Celery's self.replace.
//
//	return 0, task.Replace(task.Chain(Fetch.S(url), Parse.Rest()))
//
// The signature has the task's id, so whoever waits for the task gets its result; it inherits the task's callbacks and
// error callbacks, its place in a group, a chord or a chain, and its root. A group becomes a chord with celery.accumulate, so
// its result is a list. Nothing is stored for the task itself. A signature that cannot be sent, or is a part of a chord already, is a
// failure of the task. The worker finds it with errors.As, so it may be wrapped.
func Replace(with Signature) error { return &ReplaceError{With: with} }

// AddToChord sends a signature as one more part of the chord that the task running in ctx is a part of: Celery's
// add_to_chord. The chord's body waits for it too, and gets its result right after or before the task's own.
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
	sig = sig.With(opts...)
	wire, err := sig.Wire()
	if err != nil {
		return nil, fmt.Errorf("add to chord: %w", err)
	}
	n, err := canvas.Size(wire)
	if err != nil {
		return nil, fmt.Errorf("add to chord: %w", err)
	}
	sig = sig.change()
	sig.wire.Options["group_id"], sig.wire.Options["chord"] = info.Group, info.Embed.Chord.Value()
	if info.GroupIndex != nil {
		sig.wire.Options["group_index"] = int64(*info.GroupIndex)
	}
	if err := counter.GrowChord(ctx, info.Group, n); err != nil {
		return nil, fmt.Errorf("add to chord: %w", err)
	}
	r, err := info.Client.Apply(ctx, sig)
	if p, sent := errors.AsType[*transport.PublishError](err); err != nil && (!sent || !p.InDoubt) {
		err = errors.Join(err, counter.GrowChord(ctx, info.Group, -n)) // which else would wait for it
	}
	return r, err
}
