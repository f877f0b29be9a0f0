package task

// ReplaceError is what [Replace] returns.
type ReplaceError struct{ With Signature }

func (e *ReplaceError) Error() string { return "task asked to be replaced by " + e.With.String() }

// Replace ends the task that returns it, and lets a signature take its place: Celery's self.replace.
//
//	return 0, task.Replace(task.Chain(Fetch.S(url), Parse.Rest()))
//
// The signature has the task's id, so whoever waits for the task gets its result; it inherits the task's callbacks and
// error callbacks, its place in a group, a chord or a chain, and its root. A group becomes a chord with celery.accumulate, so
// its result is a list. Nothing is stored for the task itself. A signature that cannot be sent, or is a part of a chord already, is a
// failure of the task. The worker finds it with errors.As, so it may be wrapped.
func Replace(with Signature) error { return &ReplaceError{With: with} }
