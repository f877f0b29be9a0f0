package transport

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is returned by calls on a closed transport or consumer.
	ErrClosed = errors.New("transport is closed")
	// ErrNoRoute means that no queue is bound to the exchange and routing key: the message went nowhere.
	ErrNoRoute = errors.New("no queue is bound to this exchange and routing key")
	// ErrBrokerFull means that the broker refuses writes: Redis at maxmemory, a RabbitMQ alarm.
	ErrBrokerFull = errors.New("broker refuses new messages")
)

// PublishError is a failed Publish.
type PublishError struct {
	URL     string // the broker's URL, without its password
	InDoubt bool   // true: some or all of the batch may have arrived nevertheless
	Err     error
}

func (e *PublishError) Error() string {
	if e.InDoubt {
		return fmt.Sprintf("publish to %s (in doubt, it may have arrived): %v", e.URL, e.Err)
	}
	return fmt.Sprintf("publish to %s: %v", e.URL, e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }
