package worker

import (
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// retried describes a run that is to be followed by another attempt: the state RETRY with the error that led to it. The
// message of the next attempt is sent when that is stored, so that its outcome cannot be overwritten by it, and before the
// old one is acknowledged.
func retried(next *task.Attempt, stack []byte) completion {
	var c completion
	if next.Err != nil {
		c = failure(next.Err, stack)
	}
	c.state, c.why = protocol.Retry, next.Why
	c.following = []transport.Publication{next.Publication}
	return c
}
