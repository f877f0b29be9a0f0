package worker

import (
	"sync/atomic"

	"github.com/gelery/gelery/task"
)

// registered is a task as this worker runs it: its definition, with what is counted and set while it runs.
type registered struct {
	*task.Definition
	total  atomic.Int64               // runs begun
	limits atomic.Pointer[timeLimits] // set at run time, see SetTimeLimit; nil: the definition's
	rate   atomic.Pointer[string]     // set at run time, see SetRateLimit; nil: the definition's

	builtin bool // not of the mux, see builtins
}

// register takes over the tasks of a mux.
func register(definitions map[string]*task.Definition) map[string]*registered {
	tasks := make(map[string]*registered, len(definitions))
	for name, d := range definitions {
		tasks[name] = &registered{Definition: d}
	}
	return tasks
}
