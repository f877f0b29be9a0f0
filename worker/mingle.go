package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// helloCommand answers a Python worker that starts and asks its neighbours what it has missed: Celery's mingle. Each side
// tells the other what is revoked, and since when. Python's own times are of a clock that no other machine has.
func helloCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	from, err := a.requiredText("from_node")
	if err != nil || from == w.config.Hostname {
		return nil, err
	}
	w.log.Info("sync with " + from)
	w.revoked.learn(a.values["revoked"])
	return map[string]any{"revoked": w.revoked.told(), "clock": w.clock.Add(1)}, nil
}

// maxTold is how many revocations are told to a neighbour, the newest.
const maxTold = 10_000

// told is what is revoked as neighbours tell it each other: [seconds, id] by id.
func (r *revoked) told() map[string]any {
	all := r.listed(time.Now())
	ours := map[string]any{}
	for _, x := range all[max(0, len(all)-maxTold):] {
		ours[x.member] = []any{unixSeconds(x.at), x.member}
	}
	return ours
}

// wallClockBegins tells a time of day, in seconds since 1970, from what a Python worker tells, which is the time since its machine
// was started.
const wallClockBegins = 1e9

// learn takes in what a neighbour tells and this worker does not know. With a time of day it comes from a Go worker, which has
// told the broker itself: it keeps its age, or it would never be forgotten where workers are started again and again. What
// has none is revoked as of now.
func (r *revoked) learn(told any) {
	theirs, _ := told.(map[string]any)
	now := time.Now()
	var aged []revocation
	var ageless []string
	for _, id := range r.unknown(theirs, now) {
		pair, _ := theirs[id].([]any)
		if len(pair) > 0 {
			if s, _ := pair[0].(float64); s >= wallClockBegins && s <= 2*unixSeconds(now) {
				aged = append(aged, revocation{id, time.UnixMicro(int64(s * 1e6))})
				continue
			}
		}
		ageless = append(ageless, id)
	}
	r.add(transport.RevokedSet, aged, false)
	r.heard(transport.RevokedSet, ageless...)
}

// unknown are those ids of a neighbour that are not revoked here.
func (r *revoked) unknown(theirs map[string]any, now time.Time) (ids []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for id := range theirs {
		if !r.ids.has(id, now) {
			ids = append(ids, id)
		}
	}
	return ids
}

// mingleTimeout is how long the next answer of a neighbour is waited for. Celery's second is too short for long ones, and here no
// task waits for it.
const mingleTimeout = 5 * time.Second

// mingle asks the neighbours what this worker has missed: what is revoked, and how late it is by their clocks. It asks beside the
// first tasks, which do not wait for it; those that wait when an answer comes are looked at again.
func (w *Worker) mingle(ctx context.Context, c *control) {
	request := &protocol.PidboxRequest{Method: "hello", Clock: int(w.clock.Add(1)),
		Arguments: map[string]any{"from_node": w.config.Hostname, "revoked": w.revoked.told()}}
	nodes := 0
	err := transport.Collect(ctx, w.client.Transport(), request, c.serializer, mingleTimeout, func(d *transport.Delivery) bool {
		if d.Err != nil {
			return true
		}
		reply, err := protocol.DecodePidboxReply(d.Message, w.accept)
		if err != nil || reply.Ticket != request.Ticket || reply.Node == w.config.Hostname {
			return true
		}
		w.hearClock(int64(reply.Clock))
		if theirs, ok := reply.Value.(map[string]any); ok {
			nodes++
			w.revoked.learn(theirs["revoked"])
			if clock, ok := theirs["clock"].(int64); ok {
				w.hearClock(clock)
			}
		}
		return true
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		w.log.Warn("mingle: the neighbours were not asked what is revoked", "error", err)
	case nodes == 0:
		w.log.Info("mingle: all alone")
	default:
		w.log.Info(fmt.Sprintf("mingle: sync with %d nodes", nodes))
		w.log.Info("mingle: sync complete")
	}
}
