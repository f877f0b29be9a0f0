package worker

import (
	"context"
	"runtime/debug"
)

// goroutines is the pool that runs jobs in this process. They cannot be killed: one that is given up runs on until it
// returns, and keeps its slot.
type goroutines struct{ w *Worker }

// run implements pool, in the goroutine it is called in. It survives whatever the handler does, but for os.Exit and a fatal
// runtime error. What came back is judged and described under a recover too, because that may call methods of the user's
// types.
func (p goroutines) run(ctx context.Context, e *execution) (c completion) {
	defer func() {
		if r := recover(); r != nil {
			err := panicError(r)
			c = failure(err, debug.Stack())
			p.w.callHandlers(e, c, err)
		}
	}()
	result, stack, err := call(ctx, e)
	c = p.w.judge(ctx, e, result, err, stack)
	p.w.callHandlers(e, c, err)
	return c
}

// call calls the task's handler. A panic is an error with a stack.
func call(ctx context.Context, e *execution) (result any, stack []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err, stack = panicError(r), debug.Stack()
		}
	}()
	result, err = e.task.Handler(ctx, e.request)
	return result, nil, err
}

// open implements pool.
func (p goroutines) open() {
	c := &p.w.config
	for _, bound := range []struct {
		name string
		set  bool
	}{
		{"MaxTasksPerChild", c.MaxTasksPerChild != 0},
		{"MaxMemoryPerChild", c.MaxMemoryPerChild != 0},
		{"MemoryLimitPerChild", c.MemoryLimitPerChild != 0},
	} {
		if bound.set {
			p.w.log.Warn("worker config: "+bound.name+" does nothing: no task runs in a child process", "pool", c.Pool)
		}
	}
}

// The other methods of pool have nothing to do: a goroutine is made where it is needed.

func (goroutines) reserve(context.Context, *job) bool { return true }
func (goroutines) release(*job)                       {}
func (goroutines) resize(int)                         {}
func (goroutines) pids() []int                        { return []int{ownPID} }
func (goroutines) close()                             {}
