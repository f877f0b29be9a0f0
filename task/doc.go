// Package task is what a user of Gelery writes: what a task is, how to call it, and what becomes of it.
//
// # A task
//
// A task is a name and two types, shared by those who call it and those who run it:
//
//	type AddArgs struct {
//		X int `task:"x"`
//		Y int `task:"y,default=1"`
//	}
//
//	var Add = task.Define[AddArgs, int]("tasks.add", task.Expires(time.Hour))
//
// The name is the one Python uses, and the fields are the parameters of the Python function. A Python caller may give
// them by position or by keyword, and gets the TypeError he knows when he gets them wrong. Options given to [Define] are
// the task's defaults. A task that does not deserve a struct is a plain function: see [Func].
//
// # Calling
//
// A [Client] is the connection to a fleet, Celery's app seen from a producer:
//
//	dialing, cancel := context.WithTimeout(ctx, 10*time.Second) // without it Dial waits for the broker for ever
//	defer cancel()
//	client, err := task.Dial(dialing, task.Config{
//		Broker:  "redis://localhost:6379/0",
//		Backend: "redis://localhost:6379/1",
//	})
//	res, err := Add.Send(ctx, client, AddArgs{X: 2, Y: 3}, task.Countdown(5*time.Second), task.Queue("math"))
//	sum, err := res.Get(ctx)
//
// A task that only Python defines is called by its name: [Client.Send]. Many calls go in one round trip with
// [Client.SendBatch]. Where a call goes is decided, first match wins, by an option of the call, an option of the
// definition, [Config].Routes, and the default queue: Celery's order.
//
// # Running
//
// Package worker runs tasks. A handler finds what Celery has on self.request with [FromContext], reports with [Progress],
// and what it sends with its context becomes its child.
//
// What a handler returns decides the outcome. A value and nil: SUCCESS. [Ignore]: nothing is stored. [Reject]: the message
// is refused. Any other error: FAILURE, with the exception [ExceptionOf] makes of it; [AsPython] names the class.
//
// # Errors
//
// A failed task gives its caller an [*Error] from Get, whichever language it ran in. [PyError] asks for Python's classes:
//
//	_, err := res.Get(ctx)
//	switch {
//	case errors.Is(err, task.ErrRevoked):
//	case errors.Is(err, task.PyError("LookupError")): // KeyError and IndexError too
//	case errors.Is(err, task.PyError("shop.errors.CardDeclined")):
//	}
package task
