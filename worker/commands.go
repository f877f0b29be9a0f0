package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// controlCommand is what a worker does at a command of remote control, and what it answers: Celery's forms, texts included.
// An error is answered as {"error": <its repr in Python>}.
type controlCommand struct {
	run      func(ctx context.Context, w *Worker, a arguments) (any, error)
	required []string // the arguments that must be there
	slow     bool     // it waits for the broker
	lists    bool     // it takes the longer the more there is to tell
	program  bool     // it is the program's own, see Mux.Control
}

// controlCommands are the commands by their method.
var controlCommands = map[string]controlCommand{
	"ping":                      {run: func(context.Context, *Worker, arguments) (any, error) { return ok("pong"), nil }},
	"revoke":                    {run: revokeCommand, required: []string{"task_id"}},
	"terminate":                 {run: terminateCommand, required: []string{"signal", "task_id"}},
	"revoke_by_stamped_headers": {run: revokeByStampedHeadersCommand, required: []string{"headers"}},
	"rate_limit":                {run: rateLimitCommand, required: []string{"task_name", "rate_limit"}},
	"time_limit":                {run: timeLimitCommand},
	"add_consumer":              {run: addConsumerCommand, required: []string{"queue"}, slow: true},
	"cancel_consumer":           {run: cancelConsumerCommand, required: []string{"queue"}, slow: true},
	"active_queues":             {run: activeQueuesCommand},
	"pool_grow":                 {run: poolGrowCommand},
	"pool_shrink":               {run: poolShrinkCommand},
	"autoscale":                 {run: autoscaleCommand},
	"enable_events":             {run: enableEventsCommand},
	"disable_events":            {run: disableEventsCommand},
	"heartbeat":                 {run: heartbeatCommand},
	"election":                  {run: electionCommand, required: []string{"id", "topic"}},
	"shutdown":                  {run: shutdownCommand},
	"pool_restart":              {run: poolRestartCommand},
	"active":                    {run: activeCommand, lists: true},
	"dump_active":               {run: activeCommand, lists: true},
	"reserved":                  {run: reservedCommand, lists: true},
	"dump_reserved":             {run: reservedCommand, lists: true},
	"scheduled":                 {run: scheduledCommand, lists: true},
	"dump_schedule":             {run: scheduledCommand, lists: true},
	"revoked":                   {run: revokedCommand, lists: true},
	"dump_revoked":              {run: revokedCommand, lists: true},
	"registered":                {run: registeredCommand, lists: true},
	"dump_tasks":                {run: registeredCommand, lists: true},
	"query_task":                {run: queryTaskCommand, required: []string{"ids"}, lists: true},
	"stats":                     {run: statsCommand},
	"conf":                      {run: confCommand, lists: true},
	"dump_conf":                 {run: confCommand, lists: true},
	"report":                    {run: reportCommand, lists: true},
	"clock":                     {run: clockCommand},
	"hello":                     {run: helloCommand, required: []string{"from_node"}, lists: true},
	"memsample":                 {run: memsampleCommand},
	"memdump":                   {run: memdumpCommand, lists: true},
	"objgraph":                  {run: objgraphCommand},
}

// command carries out a request. What it does not know, and a command that panics, are errors.
func (w *Worker) command(ctx context.Context, r *protocol.PidboxRequest) (reply any, err error) {
	defer func() {
		if x := recover(); x != nil {
			reply, err = nil, panicError(x)
		}
	}()
	command, known := w.commands[r.Method]
	if !known {
		return nil, pythonError("KeyError", r.Method)
	}
	if err := w.permits(r); err != nil {
		return nil, err
	}
	a := arguments{r.Method, r.Arguments}
	if err := a.missing(command.required); err != nil {
		return nil, err
	}
	return command.run(ctx, w, a)
}

func ok(v any) map[string]any { return map[string]any{"ok": v} }

// nok is an answer that something was not done.
func nok(v any) map[string]any { return map[string]any{"error": v} }

// pythonError is an error under the name of one of Python's own classes.
func pythonError(class, text string) error {
	return task.AsPython(errors.New(text), "builtins", class, text)
}

// arguments are the keyword arguments of a command. Those it does not know are ignored.
type arguments struct {
	method string
	values map[string]any
}

// missing tells, in Python's words, which of the arguments that must be there are not.
func (a arguments) missing(required []string) error {
	var names []string
	for _, name := range required {
		if _, given := a.values[name]; !given {
			names = append(names, "'"+name+"'")
		}
	}
	said := "arguments: "
	switch n := len(names); {
	case n == 0:
		return nil
	case n == 1:
		said = "argument: " + names[0]
	default: // no command needs more than two
		said += strings.Join(names, " and ")
	}
	return pythonError("TypeError", fmt.Sprintf("%s() missing %d required positional %s", a.method, len(names), said))
}

// text is an argument that is text, "" if it is null or not there.
func (a arguments) text(name string) (string, error) {
	switch v := a.values[name].(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	default:
		return "", pythonError("TypeError", fmt.Sprintf("%s: %s is no text: %s", a.method, name, value.Repr(v, 100)))
	}
}

// requiredText is an argument that must be text, and not empty.
func (a arguments) requiredText(name string) (string, error) {
	s, err := a.text(name)
	if err == nil && s == "" {
		err = pythonError("TypeError", fmt.Sprintf("%s: %s is empty", a.method, name))
	}
	return s, err
}

// seconds is an argument that is a number of seconds, 0 if it is null or not there.
func (a arguments) seconds(name string) (time.Duration, error) {
	var s float64
	switch v := a.values[name].(type) {
	case nil:
		return 0, nil
	case int64:
		s = float64(v)
	case float64:
		s = v
	default:
		return 0, pythonError("TypeError", fmt.Sprintf("%s: %s is no number: %s", a.method, name, value.Repr(v, 100)))
	}
	if !(s >= 0) {
		return 0, pythonError("ValueError", fmt.Sprintf("%s: %s is not a number of seconds from 0: %v", a.method, name, s))
	}
	return time.Duration(min(s, maxLimit.Seconds()) * float64(time.Second)), nil
}

// truth is an argument's truth in Python's eyes; false if it is not there.
func (a arguments) truth(name string) bool {
	switch v := a.values[name].(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != ""
	case int64:
		return v != 0
	default:
		return true
	}
}

// names is an argument that is text or a list of texts.
func (a arguments) names(name string) ([]string, error) {
	var names []string
	seen := map[string]bool{}
	for _, x := range listOf(a.values[name]) {
		s, isText := x.(string)
		if !isText {
			return nil, pythonError("TypeError", fmt.Sprintf("%s: %s holds what is no text: %s", a.method, name, value.Repr(x, 100)))
		}
		if !seen[s] {
			seen[s] = true
			names = append(names, s)
		}
	}
	return names, nil
}

// listOf is Celery's maybe_list: a list, or one value as a list; null is an empty one.
func listOf(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	default:
		return []any{v}
	}
}

func revokeCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	ids, err := a.names("task_id")
	if err != nil {
		return nil, err
	}
	number, err := signalNumber(a.values["signal"])
	if err != nil {
		return nil, err
	}
	left := w.revoked.heard(transport.RevokedSet, ids...)
	if a.truth("terminate") {
		return ok(w.terminateIDs(ids, number) + leftOut(left)), nil
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !keepable(id) })
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = value.Repr(id, longestRevoked)
	}
	set := "set()" // Python's of none
	if len(ids) > 0 {
		set = "{" + strings.Join(texts, ", ") + "}"
	}
	w.log.Info("Tasks flagged as revoked: " + logged(ids))
	return ok("tasks " + set + " flagged as revoked" + leftOut(left)), nil
}

// maxLoggedIDs is how many ids one line of the log shows.
const maxLoggedIDs = 100

// logged are the first of many ids.
func logged(ids []string) string {
	if more := len(ids) - maxLoggedIDs; more > 0 {
		return strings.Join(ids[:maxLoggedIDs], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(ids, ", ")
}

// leftOut says of how many revocations nothing is kept.
func leftOut(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; %d not, since they have not from 1 to %d bytes", n, longestRevoked)
}

func terminateCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	ids, err := a.names("task_id")
	if err != nil {
		return nil, err
	}
	number, err := signalNumber(a.values["signal"])
	if err != nil {
		return nil, err
	}
	left := w.revoked.heard(transport.RevokedSet, ids...)
	return ok(w.terminateIDs(ids, number) + leftOut(left)), nil
}

func (w *Worker) terminateIDs(ids []string, signal int) string {
	meant := make(map[string]bool, len(ids))
	for _, id := range ids {
		meant[id] = true
	}
	ended := w.terminateRuns(func(r *protocol.Request) bool { return meant[r.ID] }, signal)
	if len(ended) == 0 {
		return "terminate: tasks unknown"
	}
	return "terminate: " + strings.Join(ended, ", ")
}

func revokeByStampedHeadersCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	given := a.values["headers"]
	headers, isMap := given.(map[string]any)
	if !isMap { // `celery control` sends "name=value", or a list of such
		headers = map[string]any{}
		for _, x := range listOf(given) {
			name, v, found := strings.Cut(fmt.Sprint(x), "=")
			if !found {
				return nil, pythonError("IndexError", "list index out of range")
			}
			headers[name] = v
		}
	}
	number, err := signalNumber(a.values["signal"])
	if err != nil {
		return nil, err
	}
	stamps := map[string]bool{}
	for header, values := range headers {
		for _, v := range listOf(values) {
			m, err := protocol.StampMember(header, v)
			if err != nil {
				return nil, err
			}
			stamps[m] = true
		}
	}
	members := make([]string, 0, len(stamps))
	for m := range stamps {
		members = append(members, m)
	}
	left := leftOut(w.revoked.heard(transport.RevokedStampsSet, members...))
	said := value.Repr(headers, longestRevoked)
	if !a.truth("terminate") {
		return ok("headers " + said + " flagged as revoked, but not terminated" + left), nil
	}
	ended := w.terminateRuns(func(r *protocol.Request) bool {
		for m := range stampMembers(r) {
			if stamps[m] {
				return true
			}
		}
		return false
	}, number)
	if len(ended) == 0 {
		return ok("headers " + said + " were not terminated" + left), nil
	}
	return ok("headers " + said + " revoked" + left), nil
}

func timeLimitCommand(_ context.Context, w *Worker, a arguments) (any, error) {
	name, err := a.text("task_name")
	if err != nil {
		return nil, err
	}
	var limits [2]time.Duration
	for i, argument := range []string{"hard", "soft"} {
		if limits[i], err = a.seconds(argument); err != nil {
			return nil, err
		}
	}
	if err := w.SetTimeLimit(name, limits[0], limits[1]); errors.Is(err, task.ErrNotRegistered) {
		return nok("unknown task"), nil
	} else if err != nil {
		return nil, pythonError("ValueError", err.Error())
	}
	return ok("time limits set successfully"), nil
}

func addConsumerCommand(ctx context.Context, w *Worker, a arguments) (any, error) {
	name, err := a.requiredText("queue")
	if err != nil {
		return nil, err
	}
	q := transport.Queue{Name: name}
	for _, f := range []struct {
		name string
		to   *string
	}{{"exchange", &q.Exchange}, {"exchange_type", &q.ExchangeType}, {"routing_key", &q.RoutingKey}} {
		if *f.to, err = a.text(f.name); err != nil {
			return nil, err
		}
	}
	if known, err := w.client.Queue(name); err == nil && (q.Exchange == "" && q.RoutingKey == "" || w.configured(name)) {
		q = known // its definition wins, as with Celery
	}
	if err := w.addQueue(ctx, q); err != nil {
		return nil, err
	}
	return ok("add consumer " + name), nil
}

func cancelConsumerCommand(ctx context.Context, w *Worker, a arguments) (any, error) {
	name, err := a.requiredText("queue")
	if err != nil {
		return nil, err
	}
	if err := w.CancelQueue(ctx, name); err != nil {
		return nil, err
	}
	return ok("no longer consuming from " + name), nil
}

func shutdownCommand(_ context.Context, w *Worker, _ arguments) (any, error) {
	w.log.Warn("Got shutdown from remote")
	w.Stop()
	return ok("shutting down"), nil
}
