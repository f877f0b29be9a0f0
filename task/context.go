package task

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// maxChildren bounds the children a running task records. A task that fans out further still sends everything; only
// the list in its own result ends there, which would otherwise grow the worker and the stored document alike.
const maxChildren = 10_000

// StateProgress is the custom state [Progress] stores, the name most Celery programs and monitors use.
const StateProgress protocol.State = "PROGRESS"

// Reporter stores an intermediate state of the running task. The worker gives one to each [Info].
type Reporter func(ctx context.Context, state protocol.State, meta any) error

// Info is what a running task can know of its own call: Celery's self.request. The embedded request has ID, RootID,
// ParentID, Group, GroupIndex, Shadow, Retries, ETA, Expires, TimeLimit, ArgsRepr, KwargsRepr, Origin, Args, Kwargs, Embed
// (callbacks, errbacks, chain and chord), Properties (correlation_id, reply_to, priority, delivery_mode, expiration, and
// delivery_info with the exchange and the routing key) and the rest; it must not be changed. The context has the deadline
// of a soft time limit.
type Info struct {
	*protocol.Request
	Hostname    string   // the worker's node name, e.g. "celery@web1"
	Queue       string   // the queue the message was received from
	Redelivered bool     // the message was handed out before: Celery's delivery_info["redelivered"]
	Report      Reporter // stores states; nil: there is nowhere to store them
	Client      *Client  // the worker's, to send further tasks with; nil in tests that run a handler by hand

	Secrets *value.Secrets // the task's own, see [Defaults]; nil: none

	Logger *slog.Logger // the worker's, for [Logger]; nil: the client's

	// GivenUp is closed when nobody waits any more for what the task returns: at its hard time limit, or when it is terminated.
	// It is for what a run still has to do after its soft limit, when its context is done already; nil without one.
	GivenUp <-chan struct{}

	mu       sync.Mutex
	children []protocol.ResultTuple
	passed   []protocol.Header // see PassOn
	added    map[string]int    // by AddToChord: how often it was called with what
}

type infoKey struct{}

// NewContext returns the context in which the worker runs the task that info describes. Tasks sent with it become its
// children.
func NewContext(ctx context.Context, info *Info) context.Context {
	return context.WithValue(ctx, infoKey{}, info)
}

// FromContext returns the running task's Info; false outside of a task. It replaces Celery's bind=True.
func FromContext(ctx context.Context) (*Info, bool) {
	info, ok := ctx.Value(infoKey{}).(*Info)
	return info, ok
}

// Header returns a custom header of the message as JSON text, nil if it has none of that name.
func (i *Info) Header(name string) json.RawMessage {
	for _, h := range i.Extra {
		if h.Name == name {
			return h.Value
		}
	}
	return nil
}

// CustomHeaders are the custom headers of the message, decoded: Celery's request.headers. What is no JSON value is left out,
// and so are Gelery's own and those that a broker adds on the way.
func (i *Info) CustomHeaders() map[string]any {
	headers := make(map[string]any, len(i.Extra))
	for _, h := range i.Extra {
		if v, err := serialization.DecodeJSON(h.Value); err == nil && !leftBehind(h.Name) && !protocol.IsStandardHeader(h.Name) {
			headers[h.Name] = v
		}
	}
	return headers
}

// UpdateState stores a state with its meta, any value a result can be: Celery's update_state. Custom state names are
// free; a state that is ready (SUCCESS, FAILURE, REVOKED) is refused, the worker alone stores those. It does nothing
// when the task ignores its result or the worker has no result backend.
func (i *Info) UpdateState(ctx context.Context, state protocol.State, meta any) error {
	if state == "" {
		return errors.New("update state: the state has no name")
	}
	if state.Ready() {
		return errors.New("update state: " + string(state) + " is final; return from the task instead")
	}
	if i.Report == nil {
		return nil
	}
	return i.Report(ctx, state, meta)
}

// Children returns the results of the tasks sent during the run, for the stored result; at most 10,000.
func (i *Info) Children() []protocol.ResultTuple {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.children
}

// SetChildren replaces the results of [Info.Children]: for a worker whose task runs in another process.
func (i *Info) SetChildren(children []protocol.ResultTuple) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.children = children
}

func (i *Info) addChild(child protocol.ResultTuple) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.children) < maxChildren {
		i.children = append(i.children, child)
	}
}

// Progress stores meta under the state PROGRESS of the task running in ctx; [Result.Watch] and Python's
// AsyncResult.info show it. Outside of a task it does nothing.
func Progress(ctx context.Context, meta any) error {
	info, ok := FromContext(ctx)
	if !ok {
		return nil
	}
	return info.UpdateState(ctx, StateProgress, meta)
}
