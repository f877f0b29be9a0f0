package task

import (
	"errors"
	"slices"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// Chain runs tasks one after another, each with the result of the one before as its first argument: Celery's chain, or "|".
// The result of the chain is that of its last step. Chains in it are spliced, and a group that something follows becomes a
// chord, as in Celery.
func Chain(steps ...Signature) Signature {
	if len(steps) == 0 {
		return Signature{}.fail(errors.New("a chain has no task"))
	}
	if len(steps) == 1 {
		return steps[0]
	}
	return compose("celery.chain", "chain", map[string]any{}, held("tasks", steps))
}

// Group runs tasks side by side: Celery's group. The result of the group is the list of theirs.
func Group(members ...Signature) Signature {
	return compose("celery.group", "group", map[string]any{}, held("tasks", members))
}

// Chord runs body once all of the header, a [Group], is done, with the list of its results as the first argument: Celery's
// chord. If a part fails, the body does too, with Celery's ChordError, and does not run. It needs a result backend that keeps
// results.
func Chord(header, body Signature) Signature {
	return compose("celery.chord", "chord", map[string]any{"kwargs": map[string]any{}}, held("header", []Signature{header}), held("body", []Signature{body}))
}

// Map calls a task once for each item, one after the other, in a single message: Celery's task.map(). Its result is the list
// of results. The task must be one of the worker's.
func Map[T any](of Signature, items ...T) Signature { return overItems("celery.map", of, items) }

// Starmap is [Map] for items that are lists of arguments: Celery's task.starmap().
func Starmap[T any](of Signature, items ...T) Signature {
	return overItems("celery.starmap", of, items)
}

// Chunks splits lists of arguments into a group of messages for n calls each: Celery's task.chunks(). The result is the
// list of lists of results.
func Chunks[T any](of Signature, n int, items ...T) Signature {
	if n < 1 {
		return Signature{}.fail(errors.New("chunks: n is not positive"))
	}
	var members []Signature
	for part := range slices.Chunk(items, n) {
		members = append(members, Starmap(of, part...))
	}
	return Group(members...)
}

func overItems[T any](name string, of Signature, items []T) Signature {
	it, err := value.Of(items)
	if err != nil {
		return Signature{}.fail(err)
	}
	if it == nil {
		it = []any{}
	}
	s := compose(name, "", map[string]any{"it": it}, held("task", []Signature{of}))
	s.wire.Immutable = true
	return s
}

// holding is what a workflow holds under some name.
type holding struct {
	name string
	wire []protocol.Signature
	err  error
}

func held(name string, all []Signature) holding {
	wire, err := wires(all)
	return holding{name, wire, err}
}

func compose(name, kind string, kwargs map[string]any, parts ...holding) Signature {
	s := Signature{wire: protocol.Signature{Task: name, SubtaskType: kind, Args: []any{}, Kwargs: kwargs, Options: map[string]any{}}}
	for _, p := range parts {
		if p.err != nil {
			s.err = p.err
			return s
		}
		switch p.name {
		case "tasks":
			kwargs[p.name] = signatureList(p.wire)
		default:
			kwargs[p.name] = p.wire[0].Value()
		}
	}
	return s
}
