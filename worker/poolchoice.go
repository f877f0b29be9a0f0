package worker

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/gelery/gelery/protocol"
)

// The pools, as Config.Pool names them.
const (
	PoolGoroutine = "goroutine"
	PoolProcess   = "process"
)

// poolWords are Celery's names for its pools that mean one of ours.
var poolWords = map[string]string{"": PoolGoroutine, PoolGoroutine: PoolGoroutine, "threads": PoolGoroutine,
	"gevent": PoolGoroutine, "eventlet": PoolGoroutine, PoolProcess: PoolProcess, "processes": PoolProcess, "prefork": PoolProcess}

const (
	// leastMemory is the least a limit may be: a Go program needs more before it does anything.
	leastMemory = 16 << 20
	mebibyte    = 1 << 20
)

// checkPool validates the pool and the bounds of its children.
func (c *Config) checkPool() error {
	pool, ok := poolWords[c.Pool]
	switch {
	case c.Pool == "solo":
		return fmt.Errorf("worker config: Pool: there is no solo; use %q with Concurrency 1", PoolGoroutine)
	case !ok:
		return fmt.Errorf("worker config: Pool: %q is unknown; allowed: %q, %q (prefork), and threads, gevent, eventlet for the first",
			c.Pool, PoolGoroutine, PoolProcess)
	case c.MaxTasksPerChild < 0:
		return fmt.Errorf("worker config: MaxTasksPerChild: %d is negative", c.MaxTasksPerChild)
	case c.MaxMemoryPerChild != 0 && c.MaxMemoryPerChild < mebibyte:
		return fmt.Errorf("worker config: MaxMemoryPerChild: %d is not at least %d; it counts bytes", c.MaxMemoryPerChild, mebibyte)
	case c.MemoryLimitPerChild != 0 && !limitsMemory:
		return fmt.Errorf("worker config: MemoryLimitPerChild: not on %s, where the memory of a process cannot be looked at; "+
			"MaxMemoryPerChild replaces a child after its task", runtime.GOOS)
	case c.MemoryLimitPerChild != 0 && c.MemoryLimitPerChild < leastMemory:
		return fmt.Errorf("worker config: MemoryLimitPerChild: %d is not at least %d; it counts bytes", c.MemoryLimitPerChild, leastMemory)
	case pool == PoolProcess && !hasProcesses:
		return fmt.Errorf("worker config: Pool: there is no process pool on %s; use %q", runtime.GOOS, PoolGoroutine)
	}
	c.Pool = pool
	return nil
}

// newPool makes the pool that the configuration and the tasks ask for.
func newPool(w *Worker) (pool, error) {
	if w.config.Pool == PoolProcess {
		return newProcesses(w, false), nil
	}
	for name, t := range w.tasks {
		switch {
		case !t.Defaults.Isolated:
		case !hasProcesses:
			return nil, fmt.Errorf("task %s is to be isolated: there is no process pool on %s", name, runtime.GOOS)
		default:
			return mixed{goroutines{w}, newProcesses(w, true)}, nil
		}
	}
	return goroutines{w}, nil
}

// mixed is the pool of a worker that runs its tasks in this process, but for those that are isolated.
type mixed struct {
	goroutines
	isolated *processes
}

func (p mixed) open() { p.isolated.open() }

// isolates tells whether a job is one for a child. celery.map and celery.starmap call their task where they run themselves.
func (p mixed) isolates(j *job) bool {
	if j.task.builtin && (j.task.Name == mapTask || j.task.Name == starmapTask) {
		sig, err := signatureArgument(j.request, 0, "task")
		called := p.w.tasks[sig.Task]
		return err == nil && called != nil && called.Defaults.Isolated
	}
	return j.task.Defaults.Isolated
}

func (p mixed) reserve(ctx context.Context, j *job) bool {
	return !p.isolates(j) || p.isolated.reserve(ctx, j)
}

func (p mixed) run(ctx context.Context, e *execution) completion {
	if p.isolates(e.job) {
		return p.isolated.run(ctx, e)
	}
	return p.goroutines.run(ctx, e)
}

func (p mixed) release(j *job) {
	if p.isolates(j) {
		p.isolated.release(j)
	}
}

func (p mixed) resize(slots int) { p.isolated.resize(slots) }
func (p mixed) pids() []int      { return slices.Concat(p.goroutines.pids(), p.isolated.pids()) }
func (p mixed) close()           { p.isolated.close() }

// lostProcess turns the loss of the process that ran a task into what becomes of its message: it goes back and is counted
// when it comes again, so that one which ends every process it gets is set aside in the end. A FAILURE stays one where the
// task asks for that, or the message was acknowledged before.
func lostProcess(j *job, c completion, acknowledged bool) completion {
	if reject := j.task.Defaults.RejectOnWorkerLost; acknowledged || reject != nil && !*reject {
		return c
	}
	text, _ := c.exception.Args[0].(string)
	return completion{state: protocol.Rejected, requeue: true, why: text}
}
