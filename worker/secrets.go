package worker

import (
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// secrets are what events, logs and inspect do not show of a task; nil: of an unknown one.
func (w *Worker) secrets(t *registered) value.Secrets {
	s := w.client.Secrets()
	if t != nil {
		s = s.Of(t.Defaults.Secrets)
	}
	return s
}

// reprs are argsrepr and kwargsrepr of a call as they may be shown. What the sender has written is kept unless there is a
// secret in it: Python's senders hide none by themselves.
func (w *Worker) reprs(t *registered, r *protocol.Request) (args, kwargs string) {
	s := w.secrets(t)
	if r.Protocol == 1 || s.ShownIn(r.ArgsRepr, r.KwargsRepr, r.Args, r.Kwargs) {
		return ownReprs(s, r)
	}
	return r.ArgsRepr, r.KwargsRepr
}

// ownReprs are those of a call's arguments. It is apart from reprs, so that only who needs it copies the secrets to the heap.
func ownReprs(s value.Secrets, r *protocol.Request) (args, kwargs string) {
	return s.ReprTuple(r.Args, eventReprSize), s.Repr(r.Kwargs, eventReprSize)
}
