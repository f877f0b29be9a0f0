package worker

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// continuation is what the end of a task sets going in its workflow. Celery sends what follows and then stores the result;
// here the result is stored first, so that whoever gets the message after a crash finds what was decided. Ids of what
// follows are derived from the task's own, so a step that is sent twice is the same step.
type continuation struct {
	lost      []*protocol.ResultMeta  // FAILURE of what will never run: stored with the result of the task
	parts     []chordPart             // counted when that is stored
	chords    []backends.ChordSize    // announced before what follows is sent
	following []transport.Publication // sent before the message is settled
	ended     []backends.ChordEnd     // chords whose bodies are among what follows, or have failed: forgotten then
	bodies    []*protocol.Signature   // those bodies that are among what follows
	called    []protocol.Signature    // error callbacks of bodies that have failed
	replaced  bool                    // what follows takes the task's place
}

// chordPart is a finished part of a chord, with the body that waits for it.
type chordPart struct {
	backends.ChordPart
	body *protocol.Signature
}

// follows tells whether a workflow goes on after a task.
func follows(e *protocol.Embed) bool {
	return len(e.Callbacks) > 0 || len(e.Chain) > 0 || e.Chord != nil || len(e.Errbacks) > 0
}

// carryOn adds to an outcome what follows the task by its completion, and returns what was sent as its children. What
// cannot follow makes a failure of the task, as in Celery.
func (w *Worker) carryOn(o *outcome, c *completion) (children []protocol.ResultTuple) {
	r := o.request
	if c.replacement != nil {
		child, err := w.replace(o, c.replacement)
		if err == nil {
			o.replaced = true
			return []protocol.ResultTuple{child}
		}
		*c = failure(fmt.Errorf("replace: %w", err), nil)
	}
	if !follows(&r.Embed) {
		return nil
	}
	switch c.state {
	case protocol.Success:
		children, err := w.succeed(o, c.result)
		if err == nil {
			return children
		}
		o.continuation = continuation{}
		*c = failure(task.AsPython(fmt.Errorf("what follows the task cannot be sent: %w", err), "celery.exceptions", "CallbackError"), nil)
		return w.fail(o, c.exception, c.traceback)
	case protocol.Failure:
		return w.fail(o, c.exception, c.traceback)
	case protocol.Revoked:
		o.part(protocol.Revoked, nil, c.exception)
		for _, sig := range slices.Backward(r.Embed.Chain) {
			w.lose(o, sig, protocol.Revoked, c.exception, "")
		}
	}
	return nil
}

// origin is what a workflow inherits from the task that it follows. Its ids are derived from what the task's message is and
// from what the workflow is for, so that what comes again has the same ones and nothing else has.
func origin(r *protocol.Request, purpose string, args ...any) canvas.Origin {
	n := 0
	return canvas.Origin{Args: args, RootID: cmp.Or(r.RootID, r.ID), ParentID: r.ID, ReplyTo: r.Properties.ReplyTo,
		Priority: r.Properties.Priority, NewID: func() string {
			n++
			return r.DerivedID(purpose, strconv.Itoa(n))
		}}
}

// send adds a workflow to what follows.
func (w *Worker) send(o *outcome, sig protocol.Signature, from canvas.Origin) (protocol.ResultTuple, error) {
	p, err := w.client.Prepare(w.running, sig, from)
	if err != nil {
		return protocol.ResultTuple{}, err
	}
	o.chords = append(o.chords, p.Chords...)
	o.following = append(o.following, p.Publications...)
	return p.Result, nil
}

// succeed sends the callbacks of a task and the next step of its chain, with its result. Celery's rule for callbacks: one is sent
// alone, groups each for themselves, of all others one new group is made.
func (w *Worker) succeed(o *outcome, result any) (children []protocol.ResultTuple, err error) {
	r := o.request
	from := origin(r, "success", result)
	var alone, together []protocol.Signature
	for _, sig := range r.Embed.Callbacks {
		if canvas.Kind(&sig) == "group" {
			alone = append(alone, sig)
		} else {
			together = append(together, sig)
		}
	}
	switch len(together) {
	case 0:
	case 1:
		alone = append(alone, together[0])
	default:
		alone = append(alone, canvas.GroupOf(together))
	}
	if n := len(r.Embed.Chain); n > 0 {
		alone = append(alone, nextStep(r.Embed.Chain))
	}
	for _, sig := range alone {
		child, err := w.send(o, sig, from)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sig.Task, err)
		}
		children = append(children, child)
	}
	o.part(protocol.Success, result, nil)
	return children, nil
}

// nextStep is the rest of a chain, which messages hold with the last step first.
func nextStep(rest []protocol.Signature) protocol.Signature {
	next := rest[len(rest)-1]
	rest = rest[:len(rest)-1]
	if len(rest) == 0 {
		return next
	}
	if canvas.Kind(&next) == "" { // passed on as it is
		chain := make([]any, len(rest))
		for i := range rest {
			chain[i] = rest[i].Value()
		}
		next.Options = maps.Clone(next.Options)
		next.Options["chain"] = chain
		return next
	}
	steps := []protocol.Signature{next}
	for _, sig := range slices.Backward(rest) {
		steps = append(steps, sig)
	}
	return canvas.ChainOf(steps)
}

// part adds the task to the parts that its chord counts, if it is one of a chord. As in Celery it counts whether or not its
// result is stored.
func (o *outcome) part(state protocol.State, result any, x *protocol.Exception) {
	r := o.request
	if r.Embed.Chord != nil {
		o.addPart(r.Group, r.GroupIndex, r.Embed.Chord, &protocol.ResultMeta{TaskID: r.ID, Status: state, Result: result, Exception: x})
	}
}

func (o *outcome) addPart(group string, index *int, body *protocol.Signature, meta *protocol.ResultMeta) {
	if group != "" {
		o.parts = append(o.parts, chordPart{backends.ChordPart{Group: group, Index: index, Meta: meta}, body})
	}
}

// fail tells the rest of a workflow that a task of it has failed: its chord, all that would have followed in its chain,
// and its error callbacks. What of that cannot be told is logged; it must keep nobody else from hearing.
func (w *Worker) fail(o *outcome, x *protocol.Exception, traceback string) []protocol.ResultTuple {
	r := o.request
	o.part(protocol.Failure, nil, x)
	for _, sig := range slices.Backward(r.Embed.Chain) {
		w.lose(o, sig, protocol.Failure, x, traceback)
	}
	return w.errbacks(o, r.Embed.Errbacks, r.ID, origin(r, "failure", r.ID))
}

// lose ends what will never run. It ends as the task has that it would have followed: FAILURE or REVOKED, with its error.
func (w *Worker) lose(o *outcome, sig protocol.Signature, state protocol.State, x *protocol.Exception, traceback string) {
	for _, l := range canvas.Lost(sig) {
		meta := &protocol.ResultMeta{TaskID: l.ID, Status: state, Exception: x, Traceback: traceback, DateDone: time.Now(),
			GroupID: l.Group, ParentID: o.request.ID, ReplyTo: cmp.Or(l.ReplyTo, o.request.Properties.ReplyTo), CorrelationID: l.ID}
		o.lost = append(o.lost, meta)
		if l.Chord != nil {
			o.addPart(l.Group, l.Index, l.Chord, meta)
		}
	}
}

// errbacks calls error callbacks with the id of the task that has failed: Celery's way for those which the failing worker
// cannot call itself. They are sent as one group.
func (w *Worker) errbacks(o *outcome, all []protocol.Signature, id string, from canvas.Origin) []protocol.ResultTuple {
	if len(all) == 0 {
		return nil
	}
	child, err := w.send(o, canvas.GroupOf(all), from)
	if err == nil {
		return []protocol.ResultTuple{child}
	}
	var children []protocol.ResultTuple
	for _, sig := range all { // one of them is to blame
		child, err := w.send(o, sig, from)
		if err != nil {
			w.log.Error("error callback cannot be called", "task", sig.Task, "task_id", id, "error", err)
			continue
		}
		children = append(children, child)
	}
	return children
}

// replace sends a workflow in place of a task: under its id, in its place of a group, chord or chain, with its callbacks.
func (w *Worker) replace(o *outcome, with *protocol.Signature) (protocol.ResultTuple, error) {
	r := o.request
	sig := *with
	if sig.Options["chord"] != nil {
		return protocol.ResultTuple{}, errors.New("a signature that replaces a task must not be a part of a chord")
	}
	if canvas.Kind(&sig) == "group" {
		sig = canvas.ChordOf(sig, protocol.Signature{Task: "celery.accumulate", Kwargs: map[string]any{"index": int64(0)}})
	}
	nesting := int64(r.ReplacedTaskNesting + 1)
	options := maps.Clone(sig.Options)
	if options == nil {
		options = map[string]any{}
	}
	options["replaced_task_nesting"] = nesting
	addSignatures(options, "link", r.Embed.Callbacks)
	addSignatures(options, "link_error", r.Embed.Errbacks)
	if r.Group != "" {
		options["group_id"] = r.Group
		if r.GroupIndex != nil {
			options["group_index"] = int64(*r.GroupIndex)
		}
	}
	if r.Embed.Chord != nil {
		options["chord"] = r.Embed.Chord.Value()
	}
	sig.Options = options
	sig, err := canvas.AtEnd(sig, map[string]any{"task_id": r.ID, "replaced_task_nesting": nesting})
	if err != nil {
		return protocol.ResultTuple{}, err
	}
	steps := []protocol.Signature{sig}
	for _, next := range slices.Backward(r.Embed.Chain) {
		next.Options = maps.Clone(next.Options)
		next.Options["replaced_task_nesting"] = nesting
		steps = append(steps, next)
	}
	if len(steps) > 1 {
		sig = canvas.ChainOf(steps)
	}
	from := origin(r, "replace")
	from.ParentID = cmp.Or(r.ParentID, r.ID) // a task is not its own parent
	return w.send(o, sig, from)
}

// addSignatures adds callbacks to an option.
func addSignatures(options map[string]any, name string, more []protocol.Signature) {
	have, ok := options[name].([]any)
	if !ok && options[name] != nil {
		have = []any{options[name]}
	}
	have = slices.Clone(have)
	for i := range more {
		have = append(have, more[i].Value())
	}
	if len(have) > 0 {
		options[name] = have
	}
}
