package transport

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by calls on a closed transport or consumer.
	ErrClosed = errors.New("transport is closed")
	// ErrTakenBack means that a delivery is held no more: the broker has given its message to somebody else, or will.
	ErrTakenBack = errors.New("the broker has taken the message back")
	// ErrNoRoute means that no queue is bound to the exchange and routing key: the message went nowhere.
	ErrNoRoute = errors.New("no queue is bound to this exchange and routing key")
	// ErrBrokerFull means that the broker refuses writes: Redis at maxmemory, a RabbitMQ alarm.
	ErrBrokerFull = errors.New("broker refuses new messages")
	// ErrRefused means that the broker did not take this message: RabbitMQ's negative confirmation, a queue at its
	// x-max-length with x-overflow=reject-publish, a quorum without its majority, a message that is too large for it; and
	// that an Optional message was not confirmed in reasonable time.
	ErrRefused = errors.New("broker refused the message")
	// ErrMismatch means that a queue or exchange exists with other properties than those it is declared with: AMQP's
	// 406 PRECONDITION_FAILED.
	ErrMismatch = errors.New("it exists with other properties")
	// ErrDenied means that the user may not do this: AMQP's 403 ACCESS_REFUSED, Redis's NOPERM.
	ErrDenied = errors.New("not permitted")
)

// PublishError is a failed Publish.
type PublishError struct {
	URL     string // the broker's URL, without its password
	InDoubt bool   // true: some or all of the batch may have arrived nevertheless
	// Failed are the places in the batch of the messages that the broker has refused, or not confirmed when the context ended,
	// where it is known that it has all others (RabbitMQ). nil: it is not known.
	Failed map[int]error
	Err    error
}

func (e *PublishError) Error() string {
	if e.InDoubt {
		return fmt.Sprintf("publish to %s (in doubt, it may have arrived): %v", e.URL, e.Err)
	}
	return fmt.Sprintf("publish to %s: %v", e.URL, e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }
