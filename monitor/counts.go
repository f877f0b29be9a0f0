package monitor

import "github.com/gelery/gelery/protocol"

// Counts are how many events of tasks were heard, by what they tell. An event that is repeated is counted once, if
// its task is remembered and has no later one of its kind.
type Counts struct {
	Sent      int64 `json:"sent"`
	Received  int64 `json:"received"`
	Started   int64 `json:"started"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Retried   int64 `json:"retried"`
	Revoked   int64 `json:"revoked"`
	Rejected  int64 `json:"rejected"`
	// Runtime is the sum over the tasks that succeeded, in seconds.
	Runtime float64 `json:"runtime"`
}

func (c *Counts) add(e *protocol.Event) {
	switch e.Type {
	case protocol.TaskSent:
		c.Sent++
	case protocol.TaskReceived:
		c.Received++
	case protocol.TaskStarted:
		c.Started++
	case protocol.TaskSucceeded:
		c.Succeeded++
		if x, ok := numberValue(e.Field("runtime")); ok {
			c.Runtime += x
		}
	case protocol.TaskFailed:
		c.Failed++
	case protocol.TaskRetried:
		c.Retried++
	case protocol.TaskRevoked:
		c.Revoked++
	case protocol.TaskRejected:
		c.Rejected++
	}
}
