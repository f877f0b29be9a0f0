package scheduler

import (
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// Entry is a periodic task: an entry of Celery's beat_schedule. It is not changed once a store has it.
type Entry struct {
	Name     string // unique within a store, at most 200 bytes
	Schedule Schedule
	// Task is what is sent: a call or a workflow, with its options (queue, priority, expires, headers, …). [task.S] makes one by
	// name.
	Task task.Signature
	// Make makes what is sent at each moment anew, in place of Task, for arguments that are not known before. It is not stored.
	Make func(moment time.Time) (task.Signature, error)

	Paused bool // it is kept and not sent; Celery's enabled=False

	// Missed says what becomes of moments at which no beat was there to send them.
	Missed Missed
	// Deadline is how late a moment is still sent; 0: however late, or 10 s with MissedNone. Celery's
	// beat_cron_starting_deadline, for every kind of schedule.
	Deadline time.Duration
	// Jitter spreads what would be sent at the same time: each run comes up to this much later, though not later than the next
	// moment; always the same for a moment.
	Jitter time.Duration
	// KeepExpired: a run is not given the option expires. Else a plain task that has none expires when the next run is due,
	// but not within a minute.
	KeepExpired bool

	Start, End time.Time // not before, and not after; zero: no bound. django-celery-beat's start_time and expires
	OneOff     bool      // it is paused after its first run
}

// Missed is how many of the moments are made up for at which nobody sent: the latest ones, up to so many.
type Missed int

// What else becomes of missed moments.
const (
	MissedLast Missed = 0  // the latest one is sent, once: what Celery does
	MissedNone Missed = -1 // none is sent that is later than the entry's Deadline
	MissedAll  Missed = mostMissed
)

// mostMissed is the bound of "all".
const mostMissed = 1000

func (m Missed) String() string {
	switch m {
	case MissedLast:
		return "last"
	case MissedNone:
		return "none"
	case MissedAll:
		return "all"
	}
	return strconv.Itoa(int(m))
}

// State is what became of an entry.
type State struct {
	LastRunAt     time.Time // the latest moment that is dealt with; zero: the entry never ran, and is due at once
	TotalRunCount int64     // how often it was sent
}

// EntryError is a mistake in an entry.
type EntryError struct {
	Entry string
	Field string // as in a definition: "schedule", "task", "jitter"; "" if it is about the whole
	Err   error
}

func (e *EntryError) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("entry %.200q: %v", e.Entry, e.Err)
	}
	return fmt.Sprintf("entry %.200q: %s: %v", e.Entry, e.Field, e.Err)
}
func (e *EntryError) Unwrap() error { return e.Err }

// Check tells what is wrong with the entry; nil, or an *EntryError.
func (e *Entry) Check() error {
	wrong := func(field, text string) error { return &EntryError{e.Name, field, errors.New(text)} }
	switch {
	case e.Name == "":
		return wrong("name", "it is empty")
	case len(e.Name) > 200:
		return wrong("name", "it is longer than 200 bytes")
	case e.Schedule == nil:
		return wrong("schedule", "there is none")
	case e.Missed < MissedNone || e.Missed > mostMissed:
		return wrong("missed", `it is "none", "last", "all" or 1 to 1000`)
	case e.Deadline < 0:
		return wrong("deadline", "it is negative")
	case e.Jitter < 0 || e.Jitter > 24*time.Hour:
		return wrong("jitter", "it is 0 to 24 hours")
	case !e.Start.IsZero() && !e.End.IsZero() && e.End.Before(e.Start):
		return wrong("end", "it is before the start")
	case e.Make == nil:
		if err := e.Task.Err(); err != nil {
			return &EntryError{e.Name, "task", err}
		}
	}
	return nil
}

// noneDeadline is how late a moment may be with MissedNone: as long as another beat may take to take over.
const noneDeadline = 10 * time.Second

func (e *Entry) deadline() time.Duration {
	if e.Deadline == 0 && e.Missed == MissedNone {
		return noneDeadline
	}
	return e.Deadline
}

// delay is by how much a moment of the entry is sent later: never until the next one.
func (e *Entry) delay(moment time.Time) time.Duration {
	if e.Jitter <= 0 {
		return 0
	}
	jitter := e.Jitter
	if following := next(e.Schedule, moment); !following.IsZero() {
		jitter = min(jitter, following.Sub(moment))
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(e.Name))
	_, _ = h.Write(strconv.AppendInt(nil, moment.UnixNano(), 10))
	return time.Duration(h.Sum64() % uint64(jitter))
}

// after is what the next moment comes after: the last one, or what lies before the start. An interval begins with its start.
func (e *Entry) after(s State) time.Time {
	if !e.Start.After(s.LastRunAt) {
		return s.LastRunAt
	}
	begin := e.Start.Add(-1)
	if i, ok := e.Schedule.(*Interval); ok && !i.relative {
		if begin = e.Start.Add(-i.every); begin.Before(s.LastRunAt) {
			begin = s.LastRunAt
		}
	}
	return begin
}

// Due is when the entry is to be sent next; the zero time if never.
func (e *Entry) Due(s State) time.Time {
	after := e.after(s)
	if _, clocked := e.Schedule.(Clocked); after.IsZero() && !clocked {
		return time.Unix(0, 0)
	}
	moment := next(e.Schedule, after)
	if moment.IsZero() || !e.End.IsZero() && moment.After(e.End) {
		return time.Time{}
	}
	return moment.Add(e.delay(moment))
}

// Run is one moment of an entry: what is sent, ready to be sent again.
type Run struct {
	Entry  string
	ID     string // of the task: it follows from the entry's name, the moment and the number
	Moment time.Time
	Number int64     // the entry's TotalRunCount with it
	Until  time.Time // it is not sent later; zero: however late
	Task   task.Signature

	// Not stored:
	delay time.Duration // by which the entry's jitter moves it
	most  int           // how many runs of the entry wait for a broker that does not take them
}

func (r *Run) due() time.Time { return r.Moment.Add(r.delay) }

// Headers of the messages that beat sends.
const (
	// NameHeader is the name of the entry: django-celery-beat's, here from every store.
	NameHeader = "periodic_task_name"
	// MomentHeader is the moment that the run is for, in ISO form and UTC: what Airflow calls its logical date.
	MomentHeader = "periodic_task_moment"
)

// leastExpires is the shortest time in which a run expires by itself: clocks of two machines may differ.
const leastExpires = time.Minute

// run is the entry's run of a moment, sent at now.
func (e *Entry) run(moment, now time.Time, number int64) (r Run, err error) {
	defer func() {
		if p := recover(); p != nil { // Make is the user's
			err = &EntryError{e.Name, "task", fmt.Errorf("panic: %v", p)}
		}
	}()
	sig := e.Task
	if e.Make != nil {
		if sig, err = e.Make(moment); err != nil {
			return r, &EntryError{e.Name, "task", err}
		}
	}
	wire, err := sig.Wire()
	if err != nil {
		return r, &EntryError{e.Name, "task", err}
	}
	r = Run{Entry: e.Name, Moment: moment.UTC(), Number: number, delay: e.delay(moment), most: max(1, int(e.Missed))}
	if limit := e.deadline(); limit > 0 {
		r.Until = r.due().Add(limit).UTC()
	}
	at := protocol.FormatTime(moment.UTC())
	r.ID = protocol.DerivedID("beat", e.Name, at, strconv.FormatInt(number, 10))
	options := make(map[string]any, len(wire.Options)+3)
	for name, v := range wire.Options {
		options[name] = v
	}
	headers := map[string]any{NameHeader: e.Name, MomentHeader: at}
	if own, ok := wire.Options["headers"].(map[string]any); ok {
		for name, v := range own {
			headers[name] = v
		}
	}
	options["task_id"], options["headers"] = r.ID, headers
	if _, has := options["expires"]; !has && !e.KeepExpired && wire.SubtaskType == "" {
		if following := next(e.Schedule, moment); !following.IsZero() {
			options["expires"] = protocol.FormatTime(now.Add(max(following.Sub(moment), leastExpires)).UTC())
		}
	}
	wire.Options = options
	r.Task = task.SignatureOf(wire)
	return r, nil
}
