package monitor

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// Task is what events have told of a task: Celery's celery.events.state.Task. What no event has told is zero, also where an
// event was missed.
type Task struct {
	ID    string `json:"uuid"`
	Name  string `json:"name"`
	State string `json:"state"`

	Args       string  `json:"args"`      // Python's repr, as the sender cut it
	Kwargs     string  `json:"kwargs"`    // the same
	Result     string  `json:"result"`    // the same, of a task that succeeded
	Exception  string  `json:"exception"` // "ValueError('boom')"
	Traceback  string  `json:"traceback"` // its end, if it is long
	ETA        string  `json:"eta"`       // ISO 8601
	Expires    string  `json:"expires"`   // the same
	Queue      string  `json:"queue"`     // told by task-sent only, as are the two below
	Exchange   string  `json:"exchange"`  // "": AMQP's default exchange
	RoutingKey string  `json:"routing_key"`
	RootID     string  `json:"root_id"`
	ParentID   string  `json:"parent_id"`
	Retries    int64   `json:"retries"`
	Runtime    float64 `json:"runtime"` // seconds
	Worker     string  `json:"worker"`  // node name of the last that had it
	Client     string  `json:"client"`  // node name of who sent it

	// When the last event of each kind was sent, by its sender's clock.
	Sent      time.Time `json:"sent,omitzero"`
	Received  time.Time `json:"received,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Succeeded time.Time `json:"succeeded,omitzero"`
	Failed    time.Time `json:"failed,omitzero"`
	Retried   time.Time `json:"retried,omitzero"`
	Revoked   time.Time `json:"revoked,omitzero"`
	Rejected  time.Time `json:"rejected,omitzero"`

	Timestamp time.Time `json:"timestamp,omitzero"` // of the event that made the state
	Clock     int64     `json:"clock"`              // the greatest of its events
	Phase     Phase     `json:"phase"`              // as of when it was asked for
}

// Ready tells that nothing comes after its state.
func (t *Task) Ready() bool { return isReady(t.State) }

// The kinds of events whose times are kept.
const (
	atSent = iota
	atReceived
	atStarted
	atSucceeded
	atFailed
	atRetried
	atRevoked
	atRejected
	timesKept
)

// timeKept is where the time of an event of a type is kept; -1: nowhere.
func timeKept(kind string) int {
	switch kind {
	case protocol.TaskSent:
		return atSent
	case protocol.TaskReceived:
		return atReceived
	case protocol.TaskStarted:
		return atStarted
	case protocol.TaskSucceeded:
		return atSucceeded
	case protocol.TaskFailed:
		return atFailed
	case protocol.TaskRetried:
		return atRetried
	case protocol.TaskRevoked:
		return atRevoked
	case protocol.TaskRejected:
		return atRejected
	}
	return -1
}

// taskRecord is a Task in memory.
type taskRecord struct {
	id                         string
	name, state                *name
	args, kwargs, result       string
	queue, exchange            *name
	routingKey, client, worker *name
	rootID                     string
	rare                       *rareTexts // nil: it has none
	retries                    int64
	runtime                    float64
	times                      [timesKept]int64 // microseconds since 1970; 0: not told
	timestamp                  int64
	clock                      int64
	size                       int // bytes, as the State counts them, without the names
}

// rareTexts are what most tasks have not.
type rareTexts struct{ exception, traceback, eta, expires, parentID string }

// rarely are the rare texts, to be written.
func (t *taskRecord) rarely() *rareTexts {
	if t.rare == nil {
		t.rare = &rareTexts{}
	}
	return t.rare
}

// seldom are the rare texts, to be read.
func (t *taskRecord) seldom() rareTexts {
	if t.rare == nil {
		return rareTexts{}
	}
	return *t.rare
}

// sizeOfRecord is about what a record takes beside its texts, its place in the map included.
const sizeOfRecord = 400

// measure is the record's size in bytes.
func (t *taskRecord) measure() int {
	n := sizeOfRecord + len(t.id) + len(t.args) + len(t.kwargs) + len(t.result)
	if t.rootID != t.id {
		n += len(t.rootID)
	}
	if r := t.rare; r != nil {
		n += 80 + len(r.exception) + len(r.traceback) + len(r.eta) + len(r.expires) + len(r.parentID)
	}
	return n
}

// advances tells whether an event leads the task to its state, or came out of order and only adds to what is known. As with
// Celery the states' order decides, not the clocks of many machines. Where a task begins anew, the order says nothing, and
// the time of the events does.
func (t *taskRecord) advances(state string, e *protocol.Event) bool {
	later, now := micros(e.Timestamp) >= t.timestamp, t.state.String()
	switch {
	case now == "":
		return true
	case isAgain(state):
		return later && now != StateSuccess
	case isAgain(now):
		return later || isReady(state) || wholeField(e, "retries") > t.retries
	}
	return precedence(state) >= precedence(now)
}

// merge takes in an event, whose fields are read whatever their order: each is told by one kind of event only, but for those
// that Celery takes from task-received first. It returns whether it is news, and no repetition.
func (t *taskRecord) merge(s *State, e *protocol.Event, advances bool) bool {
	at, news := micros(e.Timestamp), true
	if i := timeKept(e.Type); i >= 0 {
		news = t.times[i] != at || at == 0
		t.times[i] = max(t.times[i], at)
	}
	t.fields(s, e, advances)
	t.clock = max(t.clock, e.Clock)
	if advances {
		s.states.set(&t.state, stateOf(e.Type))
		t.timestamp = at
	}
	return news
}

// fields reads the members of an event. Those of one that came out of order do not replace what is known.
func (t *taskRecord) fields(s *State, e *protocol.Event, advances bool) {
	for i := range e.Fields {
		f := &e.Fields[i]
		switch f.Name {
		case "name":
			if t.name == nil {
				s.names.setText(&t.name, f.Value)
			}
		case "retries":
			t.retries = max(t.retries, wholeValue(f.Value))
		case "runtime":
			if x, isNumber := numberValue(f.Value); isNumber {
				t.runtime = x
			}
		case "root_id":
			if id, _ := f.Value.(string); id == t.id {
				t.rootID = t.id // which costs no memory
			} else {
				keep(&t.rootID, f.Value, maxName, advances)
			}
		case "queue":
			s.names.setText(&t.queue, f.Value)
		case "exchange":
			s.names.setText(&t.exchange, f.Value)
		case "routing_key":
			s.names.setText(&t.routingKey, f.Value)
		case "args":
			keep(&t.args, f.Value, s.config.MaxText, advances)
		case "kwargs":
			keep(&t.kwargs, f.Value, s.config.MaxText, advances)
		case "result":
			keep(&t.result, f.Value, s.config.MaxText, advances)
		default:
			t.rareField(s, f, advances)
		}
	}
}

// rareField reads a member that few events have.
func (t *taskRecord) rareField(s *State, f *protocol.EventField, advances bool) {
	if f.Value == nil {
		return
	}
	switch f.Name {
	case "parent_id":
		keep(&t.rarely().parentID, f.Value, maxName, advances)
	case "exception":
		keep(&t.rarely().exception, f.Value, s.config.MaxText, advances)
	case "traceback":
		if text, _ := f.Value.(string); text != "" && (advances || t.seldom().traceback == "") {
			t.rarely().traceback = clipStart(text, tracebackTexts*s.config.MaxText)
		}
	case "eta":
		keep(&t.rarely().eta, f.Value, maxName, advances)
	case "expires":
		keep(&t.rarely().expires, f.Value, maxName, advances)
	}
}

// keep stores a text, if there is one.
func keep(to *string, v any, most int, replace bool) {
	var text string
	switch v := v.(type) {
	case nil:
		return
	case string:
		text = v
	default: // a foreign worker's own
		text = value.Repr(v, most)
	}
	if text != "" && text != *to && (replace || *to == "") {
		*to = clip(text, most)
	}
}

// task is the record as the caller gets it.
func (t *taskRecord) task(s *State, now time.Time) Task {
	rare := t.seldom()
	return Task{ID: t.id, Name: t.name.String(), State: t.state.String(), Args: t.args, Kwargs: t.kwargs, Result: t.result, Exception: rare.exception,
		Traceback: rare.traceback, ETA: rare.eta, Expires: rare.expires, Queue: t.queue.String(), Exchange: t.exchange.String(), RoutingKey: t.routingKey.String(),
		RootID: t.rootID, ParentID: rare.parentID, Retries: t.retries, Runtime: t.runtime, Client: t.client.String(), Timestamp: moment(t.timestamp),
		Clock: t.clock, Sent: moment(t.times[atSent]), Received: moment(t.times[atReceived]), Started: moment(t.times[atStarted]),
		Succeeded: moment(t.times[atSucceeded]), Failed: moment(t.times[atFailed]), Retried: moment(t.times[atRetried]),
		Revoked: moment(t.times[atRevoked]), Rejected: moment(t.times[atRejected]), Worker: t.worker.String(), Phase: t.phase(s, now)}
}

// phase says where the task is.
func (t *taskRecord) phase(s *State, now time.Time) Phase {
	state := t.state.String()
	switch {
	case isReady(state):
		return PhaseReady
	case state == StateRejected && t.times[atRejected] > 0:
		return PhaseReady // or it comes again, and is received again then
	case isAgain(state):
		return PhaseRetry
	case t.worker == nil:
		return PhaseSent
	case !s.alive(t.worker.String(), now):
		return PhaseLost
	case state == StateReceived:
		if eta, _, err := value.ParseISO(t.seldom().eta); err == nil && eta.After(now) {
			return PhaseScheduled
		}
		return PhaseReserved
	case state == StatePending:
		return PhaseSent
	}
	return PhaseActive
}

const (
	maxName        = 256 // bytes of a name or id
	tracebackTexts = 4   // a traceback may have so many times MaxText
)

// clip is the beginning of a text in memory of its own.
func clip(s string, most int) string {
	if len(s) <= most {
		return strings.Clone(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "..."
}

// clipStart is the end of a text.
func clipStart(s string, most int) string {
	if len(s) <= most {
		return strings.Clone(s)
	}
	cut := len(s) - most
	for cut < len(s) && !utf8.RuneStart(s[cut]) {
		cut++
	}
	return "..." + s[cut:]
}

// micros is a time in microseconds since 1970, 0 for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func moment(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
