package task

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/transport"
)

// applyBatch is how many messages of a workflow are encoded and sent at once: what a large group costs in memory.
const applyBatch = 1000

// Apply sends a signature, with options as [Signature.With] sets them: Celery's apply_async. It returns when the broker has
// all messages that begin it; the others are sent by the workers, each when the step before it is done.
//
// The result is that of the last task, with those of all before it as its parents; that of a [Group] is the list of its
// members' results. Sent from within a running task, the workflow becomes its child.
//
// What cannot be sent at all is an error before anything is sent. After an error of the broker some messages may have
// been sent, see [Client.Send]; more than a thousand go in several steps. Celery refuses chords without a result backend that
// keeps results; so does Apply, with [ErrNoChords].
func (c *Client) Apply(ctx context.Context, sig Signature, opts ...SendOption) (*Result[any], error) {
	h, err := c.apply(ctx, sig.With(opts...))
	if err != nil {
		return nil, fmt.Errorf("apply %s: %w", either(sig.Name(), "signature"), err)
	}
	return &Result[any]{h}, nil
}

// ErrNoChords refuses a chord where its parts could not be counted or watched.
var ErrNoChords = errors.New("a chord needs a result backend that keeps results; there is none, or it is rpc://")

func (c *Client) apply(ctx context.Context, sig Signature) (handle, error) {
	wire, err := sig.Wire()
	if err != nil {
		return handle{}, err
	}
	origin, err := c.origin(ctx)
	if err != nil {
		return handle{}, err
	}
	x, err := canvas.Expand(wire, origin)
	if err != nil {
		return handle{}, err
	}
	handles, err := c.launch(ctx, x)
	if err != nil {
		return handle{}, err
	}
	if info, ok := FromContext(ctx); ok {
		info.addChild(x.Result)
	}
	h := c.handleOf(&x.Result)
	if len(handles) == 1 && h.id == handles[0].id {
		h.ignored = handles[0].ignored
	}
	return h, nil
}

// origin is what this client gives to workflows: where results are to be sent, for those tasks too that workers send.
func (c *Client) origin(ctx context.Context) (canvas.Origin, error) {
	o := canvas.Origin{ReplyTo: c.replyTo, HeaderErrbacks: c.config.HeaderErrbacks}
	replier, ok := c.backend.(backends.Replier)
	if !ok {
		return o, nil
	}
	replyTo, err := replier.Expect(ctx)
	if err != nil {
		return o, fmt.Errorf("result backend: %w", err)
	}
	o.ReplyTo = replyTo
	return o, nil
}

// launch announces the chords that begin and sends all that begins. It returns the handles of the last messages.
func (c *Client) launch(ctx context.Context, x *canvas.Expansion) ([]handle, error) {
	if replier, ok := c.backend.(backends.Replier); ok {
		if _, err := replier.Expect(ctx, idsOf(nil, &x.Result)...); err != nil {
			return nil, fmt.Errorf("result backend: %w", err)
		}
	}
	calls, sizes, err := c.calls(x)
	if err != nil {
		return nil, err
	}
	if err := c.announce(ctx, sizes); err != nil {
		return nil, err
	}
	return c.sendCalls(ctx, calls)
}

// announce tells the backend of the chords that are about to begin.
func (c *Client) announce(ctx context.Context, sizes []backends.ChordSize) error {
	if len(sizes) == 0 {
		return nil
	}
	if err := c.backend.(backends.ChordCounter).StartChords(ctx, sizes); err != nil {
		return fmt.Errorf("announce the chord: %w", err)
	}
	return nil
}

// sendCalls sends what begins. It returns the handles of the last messages.
func (c *Client) sendCalls(ctx context.Context, calls []Call) (handles []handle, err error) {
	for part := range slices.Chunk(calls, applyBatch) {
		if handles, err = c.sendBatch(ctx, part); err != nil {
			return nil, err
		}
	}
	return handles, nil
}

// idsOf are the ids of all tasks that a result tells of.
func idsOf(ids []string, t *protocol.ResultTuple) []string {
	for ; t != nil; t = t.Parent {
		if t.Children == nil {
			ids = append(ids, t.ID)
		}
		for i := range t.Children {
			ids = idsOf(ids, &t.Children[i])
		}
	}
	return ids
}

// calls are the messages that begin a workflow. Its chords are to be announced before, or else there is among them one
// for each chord to the task that watches it.
func (c *Client) calls(x *canvas.Expansion) ([]Call, []backends.ChordSize, error) {
	var calls []Call
	var sizes []backends.ChordSize
	for i := range x.Chords {
		chord := &x.Chords[i]
		if _, counts := c.backend.(backends.ChordCounter); counts {
			sizes = append(sizes, backends.ChordSize{Group: chord.ID, Size: chord.Size})
			continue
		}
		if _, sends := c.backend.(backends.Replier); sends || c.backend == nil {
			return nil, nil, ErrNoChords
		}
		calls = append(calls, unlock(chord))
	}
	for i := range x.Tasks {
		t := &x.Tasks[i]
		calls = append(calls, Call{Name: t.Task, Args: t.Args, Kwargs: t.Kwargs, Options: []SendOption{signatureOptions(t.Options)}, untold: true})
	}
	return calls, sizes, nil
}

// unlock calls celery.chord_unlock, which looks again and again whether all parts of a chord are done. Like Celery it goes
// where the body goes.
func unlock(chord *canvas.Chord) Call {
	parts := make([]any, len(chord.Parts))
	for i := range chord.Parts {
		parts[i] = chord.Parts[i].Value()
	}
	options := map[string]any{"countdown": float64(1), "ignore_result": true, "task_id": protocol.DerivedID(chord.ID, "unlock")}
	for _, name := range []string{"queue", "exchange", "routing_key"} {
		if v := chord.Body.Options[name]; v != nil {
			options[name] = v
		}
	}
	return Call{Name: unlockTask, Args: []any{chord.ID, chord.Body.Value()},
		Kwargs: map[string]any{"interval": nil, "max_retries": nil, "result": parts}, Options: []SendOption{signatureOptions(options)}, untold: true}
}

// unlockTask watches the chords of a backend that does not count their parts.
const unlockTask = "celery.chord_unlock"

// Prepared is a workflow that is ready to be sent: its chords announced first, then its messages, see [Client.Forward].
type Prepared struct {
	Publications []transport.Publication
	Chords       []backends.ChordSize
	Result       protocol.ResultTuple
}

// Prepare makes the messages that begin a workflow, for a worker that sends them after a task. They do not pass the
// client's middleware, like all that a worker sends for a task.
func (c *Client) Prepare(ctx context.Context, sig protocol.Signature, origin canvas.Origin) (*Prepared, error) {
	if origin.ReplyTo == "" {
		origin.ReplyTo = c.replyTo
	}
	origin.HeaderErrbacks = c.config.HeaderErrbacks
	x, err := canvas.Expand(sig, origin)
	if err != nil {
		return nil, err
	}
	if c.config.InheritParentPriority && origin.Priority != 0 {
		for _, t := range x.Tasks {
			if t.Options["priority"] == nil {
				t.Options["priority"] = int64(origin.Priority)
			}
		}
	}
	calls, sizes, err := c.calls(x)
	if err != nil {
		return nil, err
	}
	p := &Prepared{Publications: make([]transport.Publication, len(calls)), Chords: sizes, Result: x.Result}
	now := time.Now()
	for i := range calls {
		m, err := c.prepare(ctx, &calls[i], now)
		if err != nil {
			return nil, fmt.Errorf("task %s: %w", calls[i].Name, err)
		}
		p.Publications[i] = m.publication
	}
	return p, nil
}
