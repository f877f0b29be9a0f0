package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// Mux is the registry of the tasks a worker can run, by name: Celery's app.tasks. Tasks and middleware may be added
// until a worker takes the mux; after that adding panics.
type Mux struct {
	mu         sync.Mutex
	tasks      map[string]*task.Definition
	middleware []task.Middleware
	publish    []task.PublishMiddleware
	hooks      []Hooks
	commands   map[string]ControlCommand
	frozen     bool
}

// NewMux returns an empty registry.
func NewMux() *Mux { return &Mux{tasks: map[string]*task.Definition{}} }

// Handle registers a defined task with the function that runs it. It panics if the name is taken.
func Handle[A, R any](m *Mux, t *task.Task[A, R], fn func(context.Context, A) (R, error)) {
	m.Register(t.Definition(fn))
}

// Func registers a plain function, func(ctx, x, y int) (int, error), under a name; see task.Func. It panics if the
// function cannot be a task or the name is taken.
func (m *Mux) Func(name string, fn any, opts ...task.DefineOption) {
	m.Register(task.Func(name, fn, opts...))
}

// Register adds a task. It panics if the name is taken.
func (m *Mux) Register(d task.Definition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mustBeOpen()
	if _, taken := m.tasks[d.Name]; taken {
		panic(fmt.Sprintf("task %q is registered twice", d.Name))
	}
	m.tasks[d.Name] = &d
}

// Use wraps every task in middleware. The first added is the outermost.
func (m *Mux) Use(middleware ...task.Middleware) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mustBeOpen()
	m.middleware = append(m.middleware, middleware...)
}

// UsePublish adds middleware for the calls that a command line of this mux sends: those of its worker's tasks and of call.
// A client of the program's own has it in its task.Config.
func (m *Mux) UsePublish(middleware ...task.PublishMiddleware) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mustBeOpen()
	m.publish = append(m.publish, middleware...)
}

// PublishMiddleware is what UsePublish has added.
func (m *Mux) PublishMiddleware() []task.PublishMiddleware {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.publish)
}

// Hook adds functions that the worker calls as it goes on.
func (m *Mux) Hook(h Hooks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mustBeOpen()
	m.hooks = append(m.hooks, h)
}

func (m *Mux) mustBeOpen() {
	if m.frozen {
		panic("the mux is in use by a worker: register tasks, middleware and hooks before")
	}
}

// Names lists the registered tasks, sorted.
func (m *Mux) Names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make([]string, 0, len(m.tasks))
	for n := range m.tasks {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// freeze closes the mux and returns its tasks with the middleware around each, and its hooks: read-only from now on.
func (m *Mux) freeze() (map[string]*task.Definition, []Hooks) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frozen = true
	wrapped := make(map[string]*task.Definition, len(m.tasks))
	for name, d := range m.tasks {
		w := *d
		if before := d.Defaults.Handlers.BeforeStart; before != nil {
			w.Handler = func(ctx context.Context, r *protocol.Request) (any, error) {
				if err := before(ctx); err != nil {
					return nil, err
				}
				return d.Handler(ctx, r)
			}
		}
		for _, mw := range slices.Backward(m.middleware) {
			w.Handler = mw(w.Handler)
		}
		wrapped[name] = &w
	}
	return wrapped, m.hooks
}
