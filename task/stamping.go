package task

import (
	"fmt"
	"maps"
	"slices"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/canvas"
)

// StampingVisitor gives stamps to the parts of a workflow: Celery's visitor of this name. Any function may be nil. Each
// is called with a part and returns the stamps for it and for all that is in it. See [Signature.Stamp].
type StampingVisitor struct {
	Signature   func(Signature) map[string]any // a single task, wherever it is
	Chain       func(Signature) map[string]any
	Group       func(Signature) map[string]any
	ChordHeader func(Signature) map[string]any // the group that is the header; Group is not called for it
	ChordBody   func(Signature) map[string]any
	Callback    func(Signature) map[string]any // of Link
	Errback     func(Signature) map[string]any // of LinkError
}

// StampAll is the signature with stamps on all its tasks, callbacks included; see [Stamp] for one task alone. Celery:
// stamp(**headers).
func (s Signature) StampAll(stamps map[string]any) Signature {
	return s.Stamp(StampingVisitor{}, stamps)
}

// Stamp lets a visitor give stamps to all tasks of a workflow, their callbacks included, beside stamps that all get: Celery's
// stamp(visitor). A stamp that a task has already stays as it is.
func (s Signature) Stamp(v StampingVisitor, stamps map[string]any) Signature {
	wire, err := s.Wire()
	if err == nil {
		wire, err = stamper(v).stamp(wire, stamps)
	}
	if err != nil {
		return s.fail(err)
	}
	s.wire = wire
	return s
}

type stamper StampingVisitor

// more is the stamps for a part.
func more(stamps map[string]any, visit func(Signature) map[string]any, sig protocol.Signature) map[string]any {
	if visit == nil {
		return stamps
	}
	all := maps.Clone(stamps)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, visit(Signature{wire: sig}))
	return all
}

func (v stamper) stamp(sig protocol.Signature, stamps map[string]any) (protocol.Signature, error) {
	sig.Options, sig.Kwargs = maps.Clone(sig.Options), maps.Clone(sig.Kwargs)
	if sig.Options == nil {
		sig.Options = map[string]any{}
	}
	var err error
	switch canvas.Kind(&sig) {
	case "chain":
		stamps = more(stamps, v.Chain, sig)
		err = v.held(sig.Kwargs, "tasks", stamps, nil)
	case "group":
		stamps = more(stamps, v.Group, sig)
		err = v.held(sig.Kwargs, "tasks", stamps, nil)
	case "chord":
		header := v
		header.Group = v.ChordHeader
		if list, ok := sig.Kwargs["header"].([]any); ok {
			group := Group().wire
			group.Kwargs = map[string]any{"tasks": list}
			sig.Kwargs["header"] = group.Value()
		}
		if err = header.heldGroup(sig.Kwargs, stamps, v); err == nil {
			err = v.held(sig.Kwargs, "body", stamps, v.ChordBody)
		}
	default:
		stamps = more(stamps, v.Signature, sig)
		err = putStamps(sig.Options, stamps)
	}
	if err != nil {
		return sig, err
	}
	if err = v.held(sig.Options, "link", stamps, v.Callback); err == nil {
		err = v.held(sig.Options, "link_error", stamps, v.Errback)
	}
	return sig, err
}

// heldGroup stamps the header of a chord: its members as ever, the group itself as a header.
func (v stamper) heldGroup(kwargs map[string]any, stamps map[string]any, members stamper) error {
	group, err := protocol.SignatureFromValue(kwargs["header"])
	if err != nil {
		return fmt.Errorf("header of a chord: %w", err)
	}
	stamps = more(stamps, v.Group, group)
	group.Kwargs = maps.Clone(group.Kwargs)
	if err := members.held(group.Kwargs, "tasks", stamps, nil); err != nil {
		return err
	}
	kwargs["header"] = group.Value()
	return nil
}

// held stamps the signatures that are held under some name, each as what visit takes it for too.
func (v stamper) held(in map[string]any, name string, stamps map[string]any, visit func(Signature) map[string]any) error {
	one := func(held any) (any, error) {
		sig, err := protocol.SignatureFromValue(held)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		sig, err = v.stamp(sig, more(stamps, visit, sig))
		return sig.Value(), err
	}
	switch held := in[name].(type) {
	case nil:
		return nil
	case []any:
		all := make([]any, len(held))
		for i := range held {
			var err error
			if all[i], err = one(held[i]); err != nil {
				return err
			}
		}
		in[name] = all
		return nil
	default:
		stamped, err := one(held)
		in[name] = stamped
		return err
	}
}

// putStamps adds stamps to the options of a signature, which has each under its own name.
func putStamps(options map[string]any, stamps map[string]any) error {
	names := slices.Clone(list(options["stamped_headers"]))
	for _, name := range slices.Sorted(maps.Keys(stamps)) {
		if slices.Contains(names, any(name)) {
			continue
		}
		s := &settings{}
		if err := Stamp(name, stamps[name]).applySend(s); err != nil {
			return err
		}
		dict := map[string]any{}
		if err := s.dictJSON(dict); err != nil {
			return err
		}
		names = append(names, name)
		options[name] = dict[name]
	}
	if len(names) > 0 {
		options["stamped_headers"] = names
	}
	return nil
}
