package protocol

import "time"

// State is the state of a task, in Celery's words. Any other text is a custom state: stored, never ready.
type State string

const (
	Pending  State = "PENDING" // nothing stored: unknown, waiting, or expired
	Received State = "RECEIVED"
	Started  State = "STARTED"
	Success  State = "SUCCESS"
	Failure  State = "FAILURE"
	Retry    State = "RETRY"
	Revoked  State = "REVOKED"
	Ignored  State = "IGNORED"
	Rejected State = "REJECTED"
)

// Ready reports whether the state is final: SUCCESS, FAILURE or REVOKED.
func (s State) Ready() bool { return s == Success || s == Failure || s == Revoked }

// Exceptional reports whether the result of this state is an exception: FAILURE, RETRY or REVOKED.
func (s State) Exceptional() bool { return s == Failure || s == Retry || s == Revoked }

// ResultMeta is what a result backend stores of a task: the meta document.
type ResultMeta struct {
	TaskID    string
	Status    State
	Result    any        // canonical value (package value); nil when Exception is set
	Exception *Exception // of FAILURE, RETRY and REVOKED
	Traceback string
	Children  []ResultTuple // tasks sent during the run
	DateDone  time.Time     // zero unless the state is final
	GroupID   string
	ParentID  string

	// Extended is stored with result_extended only; nil otherwise.
	Extended *ExtendedMeta

	// ReplyTo and CorrelationID are those of the task's message: where a backend that keeps nothing sends the result,
	// and what it is recognized by there. They are not part of the document.
	ReplyTo, CorrelationID string
}

// ExtendedMeta is what result_extended adds to a meta document.
type ExtendedMeta struct {
	Name           string
	Args           []any
	Kwargs         map[string]any
	Worker         string
	Retries        int
	Queue          string
	StampedHeaders []string
	Stamps         map[string]any
}
