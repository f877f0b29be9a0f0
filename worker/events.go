package worker

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

const (
	// A message of task events goes out when it holds so many, or has so many bytes, or when its first has waited so long.
	// Celery sends 24 at most; here a monitor that is 10 ms late saves most of what events cost.
	fullEvents   = 256
	fullBytes    = 128 << 10
	eventsLinger = 10 * time.Millisecond
	// maxWaitingEvents bounds what waits for the broker, in bytes. Beyond it the oldest are dropped.
	maxWaitingEvents = 4 << 20
	// maxEventText bounds a text in an event, in bytes: what a message says of its arguments has no bound.
	maxEventText = 64 << 10
	// eventsTimeout bounds the sending of one message, lastEventsTimeout that of all that a stop has left.
	eventsTimeout     = 5 * time.Second
	lastEventsTimeout = time.Second
	// What could not be sent is tried again after a pause, which doubles from the first to the last.
	firstEventsPause = time.Second
	lastEventsPause  = 30 * time.Second
)

// events is Celery's event dispatcher: the actor that sends what monitors want to know. Who has something to tell leaves it
// here, which takes no longer than to write it down, whatever the broker does. Task events go out in lists, those of the
// worker each alone.
type events struct {
	w        *Worker
	exchange string
	interval time.Duration // of heartbeats; 0: there are none
	pid      int
	tasks    atomic.Bool // task events are wanted
	received receivedBefore

	mu      sync.Mutex
	waiting []*eventMessage // the oldest first; the last may not be full
	bytes   int             // of all that wait
	room    int             // what the last list took
	spare   []byte          // the memory of one that was sent
	open    bool            // the last is a list that takes more
	dropped int             // events, since it was told last
	ready   chan struct{}   // capacity 1: there is something, or a message is full
	head    []byte          // what each event begins with, as of headAt: the time zone's offset is in it
	headAt  int64           // minutes since 1970
}

// eventMessage is a message on its way.
type eventMessage struct {
	routingKey string
	body       []byte
	events     int
}

func newEvents(w *Worker) *events {
	e := &events{w: w, exchange: w.client.Config().EventExchange, pid: ownPID, ready: make(chan struct{}, 1),
		received: receivedBefore{keys: newLimitedSet(maxReceivedBefore, receivedBeforeExpires)}}
	if !w.config.DisableHeartbeat {
		e.interval = w.config.HeartbeatInterval
	}
	e.tasks.Store(w.config.TaskEvents)
	return e
}

// event is what is to be told, but for what every event has.
type event struct {
	kind    string
	members protocol.EventMembers
	success success // of a TaskSucceeded, in place of the members
}

// tellTasks adds events of tasks, in their order.
func (e *events) tellTasks(all ...event) {
	for i := range all {
		if all[i].kind == protocol.TaskSucceeded {
			e.tellSuccess(all[i].success)
			continue
		}
		e.tellTask(all[i].kind, func(m protocol.EventMembers) protocol.EventMembers { return append(m, all[i].members...) })
	}
}

// tellTask adds an event of a task, whose fields are written by the function, which must not take long.
func (e *events) tellTask(kind string, fields func(protocol.EventMembers) protocol.EventMembers) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.open {
		e.waiting, e.open = append(e.waiting, e.newList()), true
		e.bytes++
		notify(e.ready)
	}
	m := e.waiting[len(e.waiting)-1]
	before := len(m.body)
	if m.events > 0 {
		m.body = append(m.body, ", "...)
	}
	e.write(m, kind, fields)
	e.bytes += len(m.body) - before
	if m.events >= fullEvents || len(m.body) >= fullBytes {
		e.endList()
		notify(e.ready)
	}
	e.bound()
}

// newList begins a list, in the memory of one that was sent. The caller holds mu.
func (e *events) newList() *eventMessage {
	body := e.spare
	e.spare = nil
	if body == nil {
		body = make([]byte, 0, e.room)
	}
	return &eventMessage{routingKey: protocol.TaskMultiKey, body: append(body, '[')}
}

// tellWorker adds an event of the worker. A heartbeat that still waits is out of date and goes.
func (e *events) tellWorker(x event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endList()
	m := &eventMessage{}
	e.write(m, x.kind, func(m protocol.EventMembers) protocol.EventMembers { return append(m, x.members...) })
	m.routingKey = (&protocol.Event{Type: x.kind}).RoutingKey()
	if x.kind == protocol.WorkerHeartbeat {
		kept := e.waiting[:0]
		for _, old := range e.waiting {
			if old.routingKey == m.routingKey {
				e.bytes -= len(old.body)
				continue
			}
			kept = append(kept, old)
		}
		clear(e.waiting[len(kept):])
		e.waiting = kept
	}
	e.waiting = append(e.waiting, m)
	e.bytes += len(m.body)
	e.bound()
	notify(e.ready)
}

// write writes an event into a message, with the time and the clock of this moment. The caller holds mu.
func (e *events) write(m *eventMessage, kind string, fields func(protocol.EventMembers) protocol.EventMembers) {
	x := protocol.Event{Type: kind, Clock: e.w.clock.Add(1), Timestamp: time.Now()}
	m.body = x.End(fields(x.BeginAfter(m.body, e.headOf(x.Timestamp))))
	m.events++
}

// headOf is what an event of this moment begins with. The caller holds mu.
func (e *events) headOf(now time.Time) []byte {
	if at := now.Unix() / 60; at != e.headAt || e.head == nil {
		x := protocol.Event{Hostname: e.w.config.Hostname, UTCOffset: protocol.UTCOffset(now), PID: e.pid}
		e.head, e.headAt = x.Head(), at
	}
	return e.head
}

// endList ends the list that is being filled. The caller holds mu.
func (e *events) endList() {
	if e.open {
		m := e.waiting[len(e.waiting)-1]
		m.body = append(m.body, ']')
		e.bytes++
		e.open, e.room = false, len(m.body)
	}
}

// bound drops the oldest messages of too many. The caller holds mu.
func (e *events) bound() {
	n := 0
	for ; e.bytes > maxWaitingEvents && n < len(e.waiting)-1; n++ {
		e.bytes -= len(e.waiting[n].body)
		e.dropped += e.waiting[n].events
		e.waiting[n] = nil
	}
	if n > 0 {
		e.waiting = e.waiting[n:]
	}
}

// begin tells that the worker is there, before all other events.
func (e *events) begin() {
	if e.interval > 0 {
		e.tellWorker(e.w.workerEvent(protocol.WorkerOnline))
	}
}

// run sends events until ctx is done, and then what is left, worker-offline last.
func (e *events) run(ctx context.Context) {
	var beat <-chan time.Time
	if e.interval > 0 {
		ticker := time.NewTicker(e.interval)
		defer ticker.Stop()
		beat = ticker.C
	}
	var rest <-chan time.Time // ends a pause; nil: there is none
	pause := firstEventsPause
	for {
		select {
		case <-beat:
			e.tellWorker(e.w.workerEvent(protocol.WorkerHeartbeat))
		case <-e.ready:
			if rest != nil {
				continue
			}
			e.linger(ctx)
		case <-rest:
			rest = nil
		case <-ctx.Done():
			e.sendLast()
			return
		}
		if rest != nil {
			continue
		}
		if e.flush(ctx, beat) {
			pause = firstEventsPause
		} else {
			rest = time.After(pause)
			pause = min(2*pause, lastEventsPause)
		}
	}
}

// linger lets a list that is not full wait for more.
func (e *events) linger(ctx context.Context) {
	e.mu.Lock()
	alone := e.open && len(e.waiting) == 1
	e.mu.Unlock()
	if !alone {
		return
	}
	timer := time.NewTimer(eventsLinger)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-e.ready: // it is full, or the worker's own event waits behind it
	case <-ctx.Done():
	}
}

// sendLast sends what a stop has left, and tells of what it could not send.
func (e *events) sendLast() {
	if e.interval > 0 {
		e.tellWorker(e.w.workerEvent(protocol.WorkerOffline))
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastEventsTimeout)
	defer cancel()
	e.mu.Lock()
	e.endList()
	e.mu.Unlock()
	e.flush(ctx, nil)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range e.waiting {
		e.dropped += m.events
	}
	e.waiting, e.bytes, e.open = nil, 0, false
	e.tellDropped()
}

// flush sends what waits: the oldest message in any case, and those behind it that are full. False: the broker does not take
// it now, or does not answer in time. What is in doubt because its connection was lost holds up nothing behind it. While tasks
// tell more than the broker takes it does not end, so it minds the heart's beat.
func (e *events) flush(ctx context.Context, beat <-chan time.Time) bool {
	for first := true; ; first = false {
		select {
		case <-beat:
			e.tellWorker(e.w.workerEvent(protocol.WorkerHeartbeat))
		default:
		}
		m := e.next(first)
		if m == nil {
			return true
		}
		limited, cancel := context.WithTimeout(ctx, eventsTimeout)
		err := e.w.client.Transport().Broadcast(limited, e.exchange, m.routingKey, protocol.NewEventMessage(e.w.config.Hostname, m.body))
		late := limited.Err() != nil
		cancel()
		if err != nil {
			if gone := e.failed(m, err); !gone || late {
				return false
			}
			continue
		}
		if m.routingKey == protocol.TaskMultiKey { // a broker that has a message keeps nothing of ours
			e.mu.Lock()
			e.spare = m.body[:0]
			e.mu.Unlock()
		}
	}
}

// next takes out the oldest message, also if that is a list which takes more, and tells of those that were dropped.
func (e *events) next(open bool) *eventMessage {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tellDropped()
	if len(e.waiting) == 0 {
		return nil
	}
	if e.open && len(e.waiting) == 1 {
		if !open {
			notify(e.ready)
			return nil
		}
		e.endList()
	}
	m := e.waiting[0]
	e.waiting[0] = nil
	e.waiting = e.waiting[1:]
	e.bytes -= len(m.body)
	return m
}

// tellDropped tells how many events were dropped since it was told last. The caller holds mu.
func (e *events) tellDropped() {
	if e.dropped > 0 {
		e.w.log.Warn("events were dropped: the broker did not take them in time, or did not say so", "events", e.dropped)
		e.dropped = 0
	}
}

// failed puts a message that was not sent back in its place. One that may have been sent is gone: monitors know what to do
// about a gap, but count what comes twice twice. So it counts as dropped.
func (e *events) failed(m *eventMessage, err error) (gone bool) {
	if publish, ok := errors.AsType[*transport.PublishError](err); ok && publish.InDoubt {
		e.w.log.Debug("events may not have been sent", "events", m.events, "error", err)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.dropped += m.events
		return true
	}
	e.w.log.Debug("events are not sent, trying again", "error", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = append([]*eventMessage{m}, e.waiting...)
	e.bytes += len(m.body)
	e.bound()
	return false
}
