package worker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
)

const (
	// maxElections bounds those that are open, maxCandidates the candidates of one; more are answered, and not kept.
	maxElections, maxCandidates = 1000, 1000
	// maxElectionID and maxAction bound what one is about, in bytes, maxActions what is to be done in all that are open.
	maxElectionID, maxAction, maxActions = 1024, 1 << 20, 16 << 20
	// electionEnds is how long an election is kept in mind that does not come to its end.
	electionEnds = 5 * time.Minute
	// electionGrace is how long a candidate waits for others when enough have answered. Celery's waits for none, so that one
	// whose candidacy is slow may be missed, and two are elected.
	electionGrace = 500 * time.Millisecond
	// answerDelay is how long an answer waits. A Python worker that has its answers before its own candidacy has come back to it
	// ends with an IndexError.
	answerDelay = 250 * time.Millisecond
	// electedTimeout bounds what the elected worker does.
	electedTimeout = 10 * time.Second
)

// elections are held by app.control.election: of the workers that hear the command one is to do something. Each tells that
// it is a candidate (worker-elect) and answers every candidate (worker-elect-ack). When as many answers have come as there
// are workers, the candidate with the lowest clock is elected.
type elections struct {
	w       *Worker
	mu      sync.Mutex
	all     map[string]*election // by id
	actions int                  // bytes of what is to be done
}

type election struct {
	begun      time.Time
	own        *duty     // this worker is a candidate; nil: it is none
	acks       int       // that were heard
	unanswered int       // candidates that this worker has not answered
	answer     time.Time // when it does
	closes     time.Time // zero: not yet
	candidates []candidate
}

// duty is what a candidate has been told to do. What the others would do is not kept.
type duty struct {
	topic  string
	action any
	size   int
}

// candidate is a worker that has told that it would do it.
type candidate struct {
	clock int64
	node  string // with the process id
}

// electionCommand makes this worker a candidate.
func electionCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	id, err := a.requiredText("id")
	if err != nil {
		return nil, err
	}
	topic, err := a.requiredText("topic")
	if err != nil {
		return nil, err
	}
	action, err := serialization.AppendJSON(nil, a.values["action"])
	if err != nil || len(id)+len(topic) > maxElectionID || len(action) > maxAction {
		return nil, pythonError("ValueError", fmt.Sprintf("election: id and topic may have %d bytes, the action %d; %v", maxElectionID, maxAction, err))
	}
	if w.gossip == nil {
		w.log.Debug("no part is taken in an election: gossip is disabled", "id", id)
		return nil, nil //nolint:nilnil // Celery's answer is null
	}
	if !w.gossip.elections.stand(id, &duty{topic, a.values["action"], len(action)}) {
		return nil, pythonError("RuntimeError", "election: too many are open")
	}
	w.events.tellWorker(event{kind: protocol.WorkerElect, members: protocol.EventMembers(nil).Text("id", id).Text("topic", topic).JSON("action", action).Int("cver", 1)})
	return nil, nil //nolint:nilnil // Celery's answer is null
}

// of is an election, which is begun if it is not known. Of too many the oldest goes in which this worker has no duty; nil: there is
// none. The caller holds mu.
func (e *elections) of(id string) *election {
	x := e.all[id]
	if x == nil && (len(e.all) < maxElections || e.dropOldest()) {
		x = &election{begun: time.Now()}
		e.all[id] = x
	}
	return x
}

// dropOldest makes room. Who waits for an answer gets it. The caller holds mu.
func (e *elections) dropOldest() bool {
	var oldest string
	for id, x := range e.all {
		if x.own == nil && (oldest == "" || x.begun.Before(e.all[oldest].begun)) {
			oldest = id
		}
	}
	if oldest == "" {
		return false
	}
	for range e.all[oldest].unanswered {
		e.acknowledge(oldest)
	}
	e.forget(oldest)
	return true
}

// acknowledge answers a candidate.
func (e *elections) acknowledge(id string) {
	e.w.events.tellWorker(event{kind: protocol.WorkerElectAck, members: protocol.EventMembers(nil).Text("id", id)})
}

// stand notes that this worker will be a candidate, and for what. False: there are too many elections.
func (e *elections) stand(id string, own *duty) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.actions+own.size > maxActions {
		return false
	}
	x := e.of(id)
	if x == nil {
		return false
	}
	if x.own != nil {
		e.actions -= x.own.size
	}
	x.own = own
	e.actions += own.size
	return true
}

// forget lets go of an election. The caller holds mu.
func (e *elections) forget(id string) {
	if own := e.all[id].own; own != nil {
		e.actions -= own.size
	}
	delete(e.all, id)
}

// candidate notes one, this worker itself included, and has it answered.
func (e *elections) candidate(told *protocol.Event) {
	id := told.Text("id")
	if id == "" || len(id) > maxElectionID || told.Hostname == "" {
		e.w.log.Error("gossip: an election request has no id or no hostname")
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.of(id)
	if x == nil || len(x.candidates) >= maxCandidates { // it waits for the answer all the same
		e.acknowledge(id)
		return
	}
	x.candidates = append(x.candidates, candidate{told.Clock, told.Hostname + "." + strconv.Itoa(told.PID)})
	if x.unanswered++; x.unanswered == 1 {
		x.answer = time.Now().Add(answerDelay)
	}
}

// acknowledged counts an answer.
func (e *elections) acknowledged(told *protocol.Event, alive int, now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.all[told.Text("id")]
	if x == nil || x.own == nil {
		return
	}
	if x.acks++; x.acks >= alive && x.closes.IsZero() {
		x.closes = now.Add(electionGrace)
	}
}

// due is when there is something to do next; zero: there is nothing.
func (e *elections) due() (first time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.all {
		if x.unanswered > 0 && (first.IsZero() || x.answer.Before(first)) {
			first = x.answer
		}
		if !x.closes.IsZero() && (first.IsZero() || x.closes.Before(first)) {
			first = x.closes
		}
	}
	return first
}

// answers are the ids of candidacies whose answer is due, one for each.
func (e *elections) answers(now time.Time) (ids []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, x := range e.all {
		if x.unanswered > 0 && !now.Before(x.answer) {
			ids = append(ids, slices.Repeat([]string{id}, x.unanswered)...)
			x.unanswered = 0
		}
	}
	return ids
}

// close answers, and ends the elections whose time has come. If this worker is elected, it does what is to be done.
func (e *elections) close(ctx context.Context, now time.Time) {
	for _, id := range e.answers(now) {
		e.acknowledge(id)
	}
	e.mu.Lock()
	type result struct {
		leader string
		own    *duty
	}
	closed := map[string]result{}
	for id, x := range e.all {
		switch {
		case !x.closes.IsZero() && !now.Before(x.closes) && len(x.candidates) > 0 && x.unanswered == 0:
			first := slices.MinFunc(x.candidates, func(a, b candidate) int { return cmp.Or(cmp.Compare(a.clock, b.clock), cmp.Compare(a.node, b.node)) })
			closed[id] = result{first.node, x.own}
			e.forget(id)
		case now.Sub(x.begun) > electionEnds:
			e.forget(id)
		}
	}
	e.mu.Unlock()
	own := e.w.config.Hostname + "." + strconv.Itoa(ownPID)
	for id, x := range closed {
		if x.leader != own {
			e.w.log.Info("node " + x.leader + " elected for " + value.Repr(id, maxElectionID))
			continue
		}
		e.w.log.Info("I won the election " + value.Repr(id, maxElectionID))
		if err := e.act(ctx, x.own); err != nil {
			e.w.log.Error("the elected worker could not do what is to be done", "id", id, "topic", x.own.topic, "error", err)
		}
	}
}

// act does what the elected worker is to do. Celery knows one topic: to send the task of a signature.
func (e *elections) act(ctx context.Context, own *duty) error {
	if own.topic != "task" {
		return fmt.Errorf("unknown election topic %q", own.topic)
	}
	sig, err := protocol.SignatureFromValue(own.action)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, electedTimeout)
	defer cancel()
	_, err = e.w.client.Apply(ctx, task.SignatureOf(sig))
	return err
}
