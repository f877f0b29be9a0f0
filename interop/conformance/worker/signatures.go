package main

import (
	"fmt"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// signatures are the tasks that return workflows, and one that takes such a result for a workflow again. Nobody runs them:
// they lack arguments.
func signatures(mux *worker.Mux) {
	add := s("add")
	kinds := []struct {
		name string
		of   func(task.Signature) task.Signature
	}{
		{"chain", func(inner task.Signature) task.Signature { return task.Chain(inner) }},
		{"group", func(inner task.Signature) task.Signature { return task.Group(inner) }},
		{"chord", func(inner task.Signature) task.Signature { return task.Chord(inner, add) }},
	}
	for _, outer := range kinds {
		for _, inner := range kinds {
			mux.Func(name("return_nested_signature_"+outer.name+"_"+inner.name), func() (any, error) {
				wire, err := outer.of(inner.of(add)).Wire()
				if err != nil {
					return nil, err
				}
				return wire.Value(), nil
			})
		}
	}
	mux.Func(name("rebuild_signature"), rebuild, task.Params("sig_dict"))
}

// rebuild fails unless v is a signature, and so is all that it holds.
func rebuild(v any) error {
	sig, err := protocol.SignatureFromValue(v)
	if err != nil {
		return task.AsPython(fmt.Errorf("%s is not a signature: %w", text(v), err), "builtins", "TypeError")
	}
	for _, part := range []string{"tasks", "header", "body"} {
		switch held := sig.Kwargs[part].(type) {
		case nil:
		case []any:
			for _, x := range held {
				if err := rebuild(x); err != nil {
					return err
				}
			}
		default:
			if err := rebuild(held); err != nil {
				return err
			}
		}
	}
	return nil
}
