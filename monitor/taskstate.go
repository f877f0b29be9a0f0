package monitor

import (
	"strings"

	"github.com/gelery/gelery/protocol"
)

// The states of tasks as events tell of them: Celery's, and what a task-cancelled makes. An event of another type,
// "task-progress", makes its own, "PROGRESS".
const (
	StatePending   = "PENDING" // sent, and nothing else heard
	StateReceived  = "RECEIVED"
	StateStarted   = "STARTED"
	StateSuccess   = "SUCCESS"
	StateFailure   = "FAILURE"
	StateRetry     = "RETRY"
	StateRevoked   = "REVOKED"
	StateRejected  = "REJECTED"
	StateCancelled = "CANCELLED" // its worker lost the broker and gave it up; it comes again
)

// knownStates are all of them.
var knownStates = []string{StatePending, StateReceived, StateStarted, StateSuccess, StateFailure, StateRetry, StateRevoked, StateRejected, StateCancelled}

// stateOf is the state an event of a task leads to.
func stateOf(kind string) string {
	switch kind {
	case protocol.TaskSent:
		return StatePending
	case protocol.TaskReceived:
		return StateReceived
	case protocol.TaskStarted:
		return StateStarted
	case protocol.TaskSucceeded:
		return StateSuccess
	case protocol.TaskFailed:
		return StateFailure
	case protocol.TaskRetried:
		return StateRetry
	case protocol.TaskRevoked:
		return StateRevoked
	case protocol.TaskRejected:
		return StateRejected
	}
	_, subject, _ := strings.Cut(kind, "-")
	return strings.ToUpper(subject)
}

// precedence orders states: what is higher comes later in a task's life. Celery's order.
func precedence(state string) int {
	switch state {
	case StateSuccess:
		return 8
	case StateFailure:
		return 7
	case StateRevoked:
		return 5
	case StateStarted:
		return 4
	case StateReceived:
		return 3
	case StateRejected:
		return 2
	case StateRetry:
		return 1
	case StatePending:
		return 0
	}
	return 6 // of a program's own
}

// isReady tells the states that are the last.
func isReady(state string) bool {
	return state == StateSuccess || state == StateFailure || state == StateRevoked
}

// isAgain tells the states after which a task begins anew.
func isAgain(state string) bool { return state == StateRetry || state == StateCancelled }

// Phase is where a task is, in words that Celery's states have not: its PENDING means that nothing is known.
type Phase string

const (
	PhaseUnknown   Phase = "unknown"   // no event of it was heard, or it was forgotten
	PhaseSent      Phase = "sent"      // it waits in its queue: no worker has told that it has it
	PhaseScheduled Phase = "scheduled" // a worker keeps it until its eta
	PhaseReserved  Phase = "reserved"  // a worker has it and has not begun, or does not tell
	PhaseActive    Phase = "active"    // it runs
	PhaseRetry     Phase = "retry"     // it comes again
	PhaseLost      Phase = "lost"      // the worker that has it is not heard of any more
	PhaseReady     Phase = "ready"     // it has ended
)
