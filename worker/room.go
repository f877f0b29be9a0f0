package worker

import (
	"context"
	"slices"
	"time"

	"github.com/gelery/gelery/transport"
)

// What a room holds. Jobs beyond it are not due before their turn comes near: they are delayed by the broker, or parked.
const (
	// roomSize is how many jobs a room holds whose turns are more than roomShort ahead.
	roomSize = 1_000
	// roomShort is how far ahead the turns may be of what a room holds beyond roomSize.
	roomShort = 5 * time.Second
	// roomMost is how many jobs a room holds at most, however soon their turns come.
	roomMost = 10_000
	// roomSoon is how far ahead a turn may be for its job to wait in the room.
	roomSoon = 10 * time.Second
	// roomFew is how many jobs may wait in a room although their turns are further ahead than roomSoon.
	roomFew = 10
	// roomLater is how far ahead the turns of those few may be.
	roomLater = 5 * time.Minute
)

// The times for which jobs are sent away.
const (
	// roomLead is how long before its turn a job should be back, since a broker counts in seconds.
	roomLead = 2 * time.Second
	// roomDry is how little work a room may have left for it to keep whoever comes, although others are away who came before.
	roomDry = time.Second
	// farthestTurn is how far ahead turns are told, since a changed rate must not find jobs that are away for days.
	farthestTurn = time.Hour
	// roomRenewal is how long a job waits in a room before it goes by way of the broker, which else would take it back.
	roomRenewal = 15 * time.Minute
	// roomPatience is how often a room looks whether those in it should go.
	roomPatience = 10 * time.Second
)

// room is where the jobs of one task wait that a limit holds back; or those of one queue, if the limit is the queue's. They
// are not counted in the window, so that they hold up nobody else. The actor run lets them out one by one. All fields
// are guarded by rooms.mu.
type room struct {
	rooms   *rooms
	limits  []limit
	jobs    []*job
	leaving bool // one has been let out and is on its way to the pool
	away    bookings
	running bool
	woken   chan struct{} // capacity 1
}

func (r *room) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// wait is how long no job may leave; negative: until the room is woken.
func (r *room) wait(now time.Time) (longest time.Duration) {
	for _, l := range r.limits {
		if w := l.wait(now); w < 0 {
			return w
		} else if w > longest {
			longest = w
		}
	}
	return longest
}

// take lets a job begin.
func (r *room) take(j *job, now time.Time) {
	for _, l := range r.limits {
		l.take(now)
	}
	j.limits, j.let = r.limits, now
}

// expected is how long a job will wait that has n others of this room before it, and those of other rooms that wait for
// the same limits; and how far two of them lie apart.
func (r *room) expected(n int, now time.Time) (wait, each time.Duration) {
	for _, l := range r.limits {
		next, apart := l.pace(now)
		others := max(0, l.held().waiting-len(r.jobs))
		wait, each = max(wait, next+times(apart, n+others)), max(each, apart)
	}
	return wait, each
}

func times(d time.Duration, n int) time.Duration {
	if n > 0 && d > farthestTurn*24/time.Duration(n) {
		return farthestTurn * 24
	}
	return d * time.Duration(n)
}

// full tells whether a job has to wait elsewhere that would wait here for so long.
func (r *room) full(j *job, wait time.Duration, now time.Time) bool {
	n := len(r.jobs)
	switch {
	case r.away.kept(j.request.ID):
		return n >= roomMost
	case r.away.last.Sub(now) > roomSoon: // others are away who came before
		return n >= roomMost || wait > roomDry
	case n < roomFew:
		return wait > roomLater
	}
	return (n >= roomSize || wait > roomSoon) && (n >= roomMost || wait > roomShort)
}

// sendAway tells when a job should come back for which there is no room.
func (r *room) sendAway(j *job, wait, each time.Duration, now time.Time) time.Time {
	at := r.away.book(j.request.ID, now.Add(wait), each, now, now.Add(r.trust(now)))
	return now.Add(max(at.Sub(now)-roomLead, at.Sub(now)/2, leastDelay))
}

// trust is how far ahead it can be said when jobs will leave.
func (r *room) trust(now time.Time) time.Duration {
	trust := farthestTurn
	for _, l := range r.limits {
		trust = min(trust, l.trust(now))
	}
	return trust
}

// append adds jobs at the end.
func (r *room) append(jobs ...*job) {
	r.jobs = append(r.jobs, jobs...)
	r.count(len(jobs))
}

func (r *room) count(n int) {
	for _, l := range r.limits {
		l.held().waiting += n
	}
}

// run lets jobs out as their limits allow, until ctx is done. Those still waiting then go back to their queue.
func (r *room) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait := r.advance(ctx)
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-r.woken:
		case <-ctx.Done():
			return
		}
	}
}

// advance lets out all who may leave, and tells when to look again.
func (r *room) advance(ctx context.Context) time.Duration {
	w := r.rooms.w
	for ctx.Err() == nil {
		j, wait := r.next(time.Now())
		switch {
		case j == nil:
			r.trim(time.Now())
			return wait
		case !r.leave(j):
			continue
		}
		w.enqueue(ctx, j)
		r.arrived()
	}
	return roomPatience
}

// next takes the first job out, if one may leave.
func (r *room) next(now time.Time) (*job, time.Duration) {
	r.rooms.mu.Lock()
	defer r.rooms.mu.Unlock()
	if len(r.jobs) == 0 {
		if r.away.last.After(now) && r.trust(now) < farthestTurn {
			r.away.last = now // it went faster than was thought
		}
		return nil, time.Hour
	}
	if wait := r.wait(now); wait != 0 {
		if wait < 0 || wait > roomPatience {
			wait = roomPatience
		}
		return nil, wait
	}
	j := r.jobs[0]
	r.jobs[0] = nil
	r.jobs = r.jobs[1:]
	r.leaving = true
	return j, 0
}

// leave lets a job go that next has taken out. False: it has expired or the like, or must wait on, because another room
// with the same limit was faster.
func (r *room) leave(j *job) bool {
	w := r.rooms.w
	w.window.take(1)
	gone := w.discarded(j) // before it uses up anything
	if r.dismiss(j, gone, time.Now()) {
		return true
	}
	if !gone {
		w.window.free(1)
	}
	return false
}

// dismiss counts a job no more that next has taken out: it is gone, or begins. If it cannot begin it waits on (false).
func (r *room) dismiss(j *job, gone bool, now time.Time) bool {
	r.rooms.mu.Lock()
	defer r.rooms.mu.Unlock()
	if !gone && r.wait(now) != 0 {
		r.jobs = append([]*job{j}, r.jobs...)
		r.leaving = false
		return false
	}
	r.count(-1)
	if gone {
		r.leaving = false
		return false
	}
	r.take(j, now)
	return true
}

func (r *room) arrived() {
	r.rooms.mu.Lock()
	defer r.rooms.mu.Unlock()
	r.leaving = false
}

// trim sends away who has to wait much longer than was thought. Who has waited for long, few as they may be, goes once by way of the
// broker, which else would take him back (RabbitMQ's consumer_timeout).
func (r *room) trim(now time.Time) {
	r.rooms.mu.Lock()
	soon := roomSoon
	if len(r.jobs) <= roomFew {
		soon = roomLater
	}
	keep := len(r.jobs)
	if next, each := r.expected(0, now); keep > 1 && each > 0 && next+times(each, keep-1) > 2*soon {
		keep = max(1, int((soon-next)/each)+1)
	}
	old := 0
	for old < keep && now.Sub(r.jobs[old].entered) > roomRenewal {
		old++
	}
	out := append(slices.Clone(r.jobs[:old]), r.jobs[keep:]...)
	r.jobs = slices.Delete(r.jobs, keep, len(r.jobs))
	r.jobs = slices.Delete(r.jobs, 0, old)
	r.count(-len(out))
	back := make([]time.Time, len(out))
	wait, each := r.expected(len(r.jobs), now)
	for i, j := range out {
		if back[i] = now.Add(leastDelay); i >= old {
			back[i] = r.sendAway(j, wait, each, now)
		}
	}
	r.rooms.mu.Unlock()
	r.rooms.w.window.take(len(out))
	for i, j := range out {
		r.rooms.w.postpone(j, back[i])
	}
}

// outside stops counting jobs in the window, here and at the broker, because they wait for a time and not for a slot.
func (w *Worker) outside(batch ...*transport.Delivery) {
	if len(batch) == 0 {
		return
	}
	if broker, ok := w.consumer.(transport.Parker); ok {
		broker.Park(batch)
	}
	w.window.free(len(batch))
}
