package worker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

const (
	// recallInterval is how often the broker is asked what else was revoked: a message about it may have been missed.
	recallInterval = 5 * time.Second
	// recallOverlap is how much of the time before is asked for again, for the broker's clock may have stepped.
	recallOverlap = 10 * time.Second
	// recallTimeout bounds one question, that at the start included.
	recallTimeout = 5 * time.Second
	// longestRevoked bounds what is kept of one revocation, in bytes; ids are 36 of them.
	longestRevoked = 1024
)

// revoked is what must not run any more: task ids, and stamps as protocol.StampMember writes them. While there is nothing
// of either, asking costs one atomic load.
//
// It is filled by remote control, by what the broker's Keeper remembers, and by the state file, and fills both of these.
type revoked struct {
	w    *Worker
	some atomic.Bool

	mu          sync.RWMutex
	ids, stamps *limitedSet
	unkept      map[string][]string // by the Keeper's set: heard here, and to be remembered by the broker

	came  chan struct{} // capacity 1: there are new ones, so jobs that wait may have to go
	stale chan struct{} // capacity 1: what is kept elsewhere is behind
}

func newRevoked(w *Worker) *revoked {
	c := &w.config
	return &revoked{w: w, ids: newLimitedSet(c.RevokesMax, c.RevokeExpires), stamps: newLimitedSet(c.RevokesMax, c.RevokeExpires),
		unkept: map[string][]string{}, came: make(chan struct{}, 1), stale: make(chan struct{}, 1)}
}

// revocation is one member of what is revoked, as of a time.
type revocation struct {
	member string
	at     time.Time
}

// add takes in members of one of the Keeper's sets. Heard: by remote control, so that the broker should keep them.
func (r *revoked) add(set string, members []revocation, heard bool) {
	now, news := time.Now(), false
	r.mu.Lock()
	into := r.of(set)
	for _, m := range members {
		if keepable(m.member) && into.add(m.member, m.at, now) {
			news = true
			if heard {
				r.unkept[set] = newest(append(r.unkept[set], m.member), into.max)
			}
		}
	}
	r.some.Store(r.ids.len()+r.stamps.len() > 0)
	r.mu.Unlock()
	if news {
		notify(r.came)
		notify(r.stale)
	}
}

// heard takes in what remote control says, as of now. It tells how many are left out because they cannot be kept.
func (r *revoked) heard(set string, members ...string) (left int) {
	now := time.Now()
	list := make([]revocation, len(members))
	for i, m := range members {
		list[i] = revocation{m, now}
		if !keepable(m) {
			left++
		}
	}
	r.add(set, list, true)
	return left
}

// keepable tells whether a member is one that may be kept.
func keepable(member string) bool { return member != "" && len(member) <= longestRevoked }

// newest are the last of a list, at most so many.
func newest(list []string, most int) []string { return list[max(0, len(list)-most):] }

// notify wakes the reader of a channel of capacity 1.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// holds tells whether a request is revoked, and by which stamp if it is by one.
func (r *revoked) holds(request *protocol.Request) (stamp string, yes bool) {
	if !r.some.Load() {
		return "", false
	}
	now := time.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.ids.has(request.ID, now) {
		return "", true
	}
	if r.stamps.len() == 0 {
		return "", false
	}
	for m := range stampMembers(request) {
		if r.stamps.has(m, now) {
			return m, true
		}
	}
	return "", false
}

// stampMembers are the stamps of a request, each value of a list by itself.
func stampMembers(request *protocol.Request) map[string]struct{} {
	out := map[string]struct{}{}
	for _, header := range request.StampedHeaders {
		for _, v := range stampValuesOf(request.Stamps[header]) {
			if m, err := protocol.StampMember(header, v); err == nil {
				out[m] = struct{}{}
			}
		}
	}
	return out
}

// stampValuesOf are the values of one stamp: those of a list, or the only one.
func stampValuesOf(raw json.RawMessage) []any {
	v, err := serialization.DecodeJSON(raw)
	if err != nil {
		return nil
	}
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

// stampText shows a stamp as Celery's log does: a mapping of the header.
func stampText(member string) string {
	header, v, _ := strings.Cut(member, "=")
	return "{'" + header + "': " + v + "}"
}

// dropWaiting ends jobs that wait and are revoked, whenever there are new revocations, until ctx is done.
func (r *revoked) dropWaiting(ctx context.Context) {
	for {
		select {
		case <-r.came:
		case <-ctx.Done():
			return
		}
		for _, j := range r.w.takeWaiting(func(j *job) bool { _, yes := r.holds(j.request); return yes }) {
			if !r.w.discarded(j) { // expired from the set in this very moment
				r.w.due(ctx, j)
			}
		}
	}
}

// keep saves what is heard, and reads what others have, until ctx is done. What was heard last is saved before it returns.
func (r *revoked) keep(ctx context.Context, since time.Time) {
	keeper, _ := r.w.client.Transport().(transport.Keeper)
	recall := time.NewTicker(recallInterval)
	defer recall.Stop()
	for {
		select {
		case <-r.stale:
			// Many come together, and the file is written anew each time.
			if debounce(ctx, saveDelay) {
				notify(r.stale) // ctx is done: it is saved below
				continue
			}
			r.save(ctx, keeper)
		case <-recall.C:
			r.remember(ctx, keeper) // what was not kept before
			since = r.recall(ctx, keeper, since)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveGrace)
			defer cancel()
			select {
			case <-r.stale:
				r.save(last, keeper)
			default:
				r.remember(last, keeper)
			}
			return
		}
	}
}

// debounce waits, and tells whether ctx was done before.
func debounce(ctx context.Context, d time.Duration) (done bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-ctx.Done():
		return true
	}
}

const (
	saveDelay = 200 * time.Millisecond
	saveGrace = 2 * time.Second
)

// save writes the state file, and lets the broker remember what was heard.
func (r *revoked) save(ctx context.Context, keeper transport.Keeper) {
	if err := r.w.saveState(); err != nil {
		r.w.log.Error("state file was not written", "file", r.w.config.StateFile, "error", err)
	}
	r.remember(ctx, keeper)
}

// remember lets the broker remember what was heard. What it does not take is kept for the next time.
func (r *revoked) remember(ctx context.Context, keeper transport.Keeper) {
	r.mu.Lock()
	unkept := r.unkept
	r.unkept = map[string][]string{}
	r.mu.Unlock()
	if keeper == nil || len(unkept) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	for set, members := range unkept {
		b := transport.KeeperBounds{Members: r.w.config.RevokesMax, Age: r.w.config.RevokeExpires}
		if err := keeper.Remember(ctx, set, members, b); err != nil {
			r.unkeep(set, members)
			r.w.log.Error("revocations are not kept by the broker, trying again; workers that are away do not learn of them",
				"number", len(members), "error", err)
		}
	}
}

// unkeep takes back what the broker did not remember, before what has been heard meanwhile. What has expired is let go.
func (r *revoked) unkeep(set string, members []string) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.of(set)
	members = slices.DeleteFunc(members, func(m string) bool { return !of.has(m, now) })
	r.unkept[set] = newest(append(members, r.unkept[set]...), of.max)
}

// of is what is revoked of one of the Keeper's sets. The caller holds mu.
func (r *revoked) of(set string) *limitedSet {
	if set == transport.RevokedStampsSet {
		return r.stamps
	}
	return r.ids
}

// recall reads what the broker has remembered since a time, and returns the time from which to read next. The zero time
// means everything.
func (r *revoked) recall(ctx context.Context, keeper transport.Keeper, since time.Time) time.Time {
	if keeper == nil {
		return since
	}
	ctx, cancel := context.WithTimeout(ctx, recallTimeout)
	defer cancel()
	now, within := time.Now(), r.w.config.RevokeExpires
	if !since.IsZero() {
		within = min(within, now.Sub(since)+recallOverlap)
	}
	for _, set := range []string{transport.RevokedSet, transport.RevokedStampsSet} {
		found, err := keeper.Recall(ctx, set, within)
		if err != nil {
			r.w.log.Warn("revocations could not be read from the broker, trying again", "error", err)
			return since
		}
		members := make([]revocation, len(found))
		for i, f := range found {
			members[i] = revocation{f.Member, now.Add(-f.Age)}
		}
		r.add(set, members, false)
	}
	return now
}
