package worker

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
	"github.com/gelery/gelery/transport"
)

// countParts counts the parts of chords that a batch of outcomes has ended, once their results are stored, and lets the
// bodies of complete chords follow. A body that cannot follow may be a part of another chord, which is counted next. It
// goes on trying until a cold stop ends it (false). A backend that counts no chords has celery.chord_unlock look at them.
func (w *Worker) countParts(batch []*outcome) bool {
	counter, ok := w.backend.(backends.ChordCounter)
	if !ok {
		return true
	}
	for {
		var parts []backends.ChordPart
		var owners []*outcome
		var bodies []*protocol.Signature
		for _, o := range batch {
			for i := range o.parts {
				parts = append(parts, o.parts[i].ChordPart)
				owners, bodies = append(owners, o), append(bodies, o.parts[i].body)
			}
			o.parts = nil
		}
		if len(parts) == 0 {
			return true
		}
		states, ok := w.count(counter, parts)
		if !ok {
			return false
		}
		for i, state := range states {
			switch {
			case state.Complete:
				w.completeChord(owners[i], parts[i].Group, bodies[i], state)
			case state.Unsized:
				w.countedUnsized(owners[i], chordPart{parts[i], bodies[i]})
			}
		}
		if !w.storeLost(batch) {
			return false
		}
	}
}

// count asks the backend until it answers.
func (w *Worker) count(counter backends.ChordCounter, parts []backends.ChordPart) ([]backends.ChordState, bool) {
	for {
		states, err := counter.CountParts(w.applying, parts)
		if err == nil {
			return states, true
		}
		if bad, ok := errors.AsType[*backends.EncodeError](err); ok && refusePart(parts, bad) {
			continue
		}
		w.log.Error("parts of chords are not counted, trying again", "parts", len(parts), "error", err)
		select {
		case <-time.After(storePause):
		case <-w.applying.Done():
			return nil, false
		}
	}
}

// refusePart replaces the result of a part that the backend cannot write, once.
func refusePart(parts []backends.ChordPart, bad *backends.EncodeError) bool {
	for i := range parts {
		m := parts[i].Meta
		if m.TaskID == bad.TaskID && (m.Exception == nil || m.Exception.Type != "EncodeError") {
			m = new(*m)
			unencodable(m, bad.Err)
			parts[i].Meta = m
			return true
		}
	}
	return false
}

// storeLost stores FAILURE for what will not run because a chord has failed.
func (w *Worker) storeLost(batch []*outcome) bool {
	lost := &outcome{}
	for _, o := range batch {
		lost.lost = append(lost.lost, o.lost...)
		o.lost = nil
	}
	return w.storeResults([]*outcome{lost})
}

// completeChord sends the body of a chord whose last part was counted, with the list of results, or fails it.
func (w *Worker) completeChord(o *outcome, group string, body *protocol.Signature, state backends.ChordState) {
	if body == nil { // only the message that could not be read knows it
		w.log.Error("a chord is complete by a part whose message cannot be read: its body waits until that is mended and sent again",
			"group", group, "task_id", o.request.ID)
		return
	}
	o.ended = append(o.ended, backends.ChordEnd{Group: group, Failed: state.Err != nil || state.Failed != nil})
	switch {
	case state.Err != nil:
		w.failChord(o, body, fmt.Sprintf("Join error: %v", state.Err), nil)
	case state.Failed != nil:
		w.failChord(o, body, dependencyRaised(state.Failed), state.Failed.Exception)
	default:
		results := state.Results
		if results == nil {
			results = []any{}
		}
		from := len(o.following)
		if _, err := w.send(o, *body, origin(o.request, "body "+group, results)); err != nil {
			w.failChord(o, body, fmt.Sprintf("Callback error: %v", err), nil)
			return
		}
		startOnce(o.following[from:])
		o.bodies = append(o.bodies, body)
	}
}

// startOnce marks messages that may be sent twice, by a worker that dies before it can tell that it has sent them, as ones
// that must not run twice. See [Worker.startsFirst].
func startOnce(messages []transport.Publication) {
	for _, p := range messages {
		p.Message.Headers.SetOnce(protocol.NewID())
	}
}

// failChord ends the body of a chord without a run: FAILURE with Celery's ChordError for all that a client may wait for,
// and the body's error callbacks. The members of a body that is a group have the cause itself, the error of the part that has
// failed, if there is one: Celery's rule from 5.6 on, before which they had nothing.
func (w *Worker) failChord(o *outcome, body *protocol.Signature, text string, cause *protocol.Exception) {
	x := &protocol.Exception{Type: "ChordError", Module: "celery.exceptions", Args: []any{text}}
	if cause != nil && canvas.Kind(body) == "group" {
		x = cause
	}
	w.log.Error("Chord failed: "+text, "task", body.Task, "task_id", body.Options["task_id"])
	w.lose(o, *body, protocol.Failure, x, "")
	id, _ := body.Options["task_id"].(string)
	if id == "" {
		if lost := canvas.Lost(*body); len(lost) > 0 {
			id = lost[len(lost)-1].ID
		}
	}
	list := canvas.Errbacks(body)
	var errbacks []protocol.Signature
	for _, v := range list {
		sig, err := protocol.SignatureFromValue(v)
		if err != nil {
			w.log.Error("error callback cannot be called", "task_id", id, "error", err)
			continue
		}
		// One that a chord has handed down to a chord in its header, as Celery's link_error does, is called for the inner one.
		if !slices.ContainsFunc(o.called, func(had protocol.Signature) bool { return reflect.DeepEqual(had, sig) }) {
			errbacks = append(errbacks, sig)
		}
	}
	o.called = append(o.called, errbacks...)
	from := origin(o.request, "failed body "+id, id)
	from.ParentID = id
	children := w.errbacks(o, errbacks, id, from)
	for _, meta := range o.lost {
		if meta.TaskID == id {
			meta.Children = children
		}
	}
}

// announceChords stores the sizes of the chords that begin with what follows a task.
func (w *Worker) announceChords(o *outcome) error {
	if len(o.chords) == 0 {
		return nil
	}
	return w.backend.(backends.ChordCounter).StartChords(w.applying, o.chords)
}

// endChords forgets chords whose bodies are sent. What is left of one whose end cannot be told expires.
func (w *Worker) endChords(o *outcome) {
	counter, counts := w.backend.(backends.ChordCounter)
	if len(o.ended) == 0 || !counts {
		return
	}
	if err := counter.EndChords(w.applying, o.ended); err != nil {
		w.log.Warn("what is stored of ended chords is not removed, it will expire", "chords", len(o.ended), "error", err)
	}
}

// startsFirst tells whether a message that must not start its task twice is the first to do so: of two messages of one
// chord's body, one runs. A message that comes again is the same one.
func (w *Worker) startsFirst(j *job) bool {
	once := j.request.Once()
	claimer, ok := w.backend.(backends.Claimer)
	if once == "" || !ok {
		return true
	}
	name := fmt.Sprintf("%s/%d/%d", j.request.ID, j.request.Retries, j.request.ReplacedTaskNesting)
	for {
		first, err := claimer.Claim(w.applying, name, once)
		switch {
		case err == nil && first:
			return true
		case err == nil:
			w.log.Info("Discarding the second message of a chord's body: "+fullName(j.request), "task", j.request.Task, "task_id", j.request.ID)
			w.report(&outcome{delivery: j.delivery, request: j.request, state: protocol.Ignored})
			return false
		}
		w.log.Error("whether a chord's body runs already is not known, asking again", "task_id", j.request.ID, "error", err)
		select {
		case <-time.After(storePause):
		case <-w.applying.Done():
			return true
		}
	}
}
