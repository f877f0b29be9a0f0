package main

import (
	"errors"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// expected is the suite's ExpectedException.
func expected(args ...any) error { return task.AsPython(nil, module, "ExpectedException", args...) }

// unpickleable is the suite's UnpickleableException, which Python cannot make again of its arguments: in its place a Python
// worker stores a wrapper that tells of it.
func unpickleable(foo any) error {
	const class = "UnpickleableException"
	return task.AsPython(nil, "celery.utils.serialization", "UnpickleableExceptionWrapper", module, class, []any{foo}, class+"("+text(foo)+")")
}

// failing are the tasks that fail.
func failing(mux *worker.Mux) {
	mux.Func(name("fail"), func(args ...any) error {
		return expected(append([]any{"Task expected to fail"}, args...)...)
	})
	mux.Func(name("raise_error"), func(...any) error {
		return task.AsPython(errors.New("deliberate error"), "builtins", "ValueError")
	})
	mux.Func(name("fail_unpickleable"), func(foo, _ any) error { return unpickleable(foo) }, task.Params("foo", "bar"))
}
