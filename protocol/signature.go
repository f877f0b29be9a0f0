package protocol

// Signature is a task call that is not sent yet, in the dict form Celery writes into messages.
type Signature struct {
	Task        string
	Args        []any
	Kwargs      map[string]any
	Options     map[string]any // what apply_async takes: task_id, queue, countdown, link, stamps, …
	SubtaskType string         // "chain", "group", "chord" or ""
	Immutable   bool           // never receives its parent's result
	Extra       map[string]any // unknown keys, kept
}
