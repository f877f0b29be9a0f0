package cli

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// remoteCommand is a command of remote control: what celery inspect and celery control take and send.
type remoteCommand struct {
	name     string
	args     []remoteArgument
	required int    // of args
	variadic string // the argument that takes the rest, as a list; "": none
	usage    string // of the arguments
	short    string
	silent   bool // Python workers do not answer it
}

// remoteArgument is an argument by its place.
type remoteArgument struct {
	name string
	read func(text string) (any, error)
}

func textArgument(text string) (any, error) { return text, nil }

func intArgument(text string) (any, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no whole number", text)
	}
	return n, nil
}

func floatArgument(text string) (any, error) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is no number", text)
	}
	return x, nil
}

// boolArgument takes Celery's words.
func boolArgument(text string) (any, error) {
	switch strings.ToLower(text) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return nil, fmt.Errorf("%q is not true or false", text)
}

// inspectCommands are Celery's that only look.
var inspectCommands = []remoteCommand{
	{name: "active", short: "tasks that run"},
	{name: "active_queues", short: "queues the workers receive from"},
	{name: "clock", short: "the workers' logical clocks"},
	{name: "conf", args: []remoteArgument{{"with_defaults", boolArgument}}, usage: "[with_defaults]", short: "settings, secrets masked"},
	{name: "memdump", args: []remoteArgument{{"samples", intArgument}}, usage: "[samples]", short: "use of memory, as text"},
	{name: "memsample", short: "resident memory"},
	{name: "objgraph", args: []remoteArgument{{"type", textArgument}, {"num", intArgument}, {"max_depth", intArgument}}, usage: "[type [num [max_depth]]]",
		short: "a graph of objects, of Python workers only"},
	{name: "ping", short: "who is there"},
	{name: "query_task", variadic: "ids", usage: "id ...", short: "tasks by id, if a worker has them"},
	{name: "registered", variadic: "taskinfoitems", usage: "[attribute ...]", short: "names of the tasks, and attributes of theirs"},
	{name: "report", short: "what a bug report should have"},
	{name: "reserved", short: "tasks that wait for a slot"},
	{name: "revoked", short: "ids that are revoked"},
	{name: "scheduled", short: "tasks that wait for their eta"},
	{name: "stats", short: "figures of the workers"},
}

// controlCommands are Celery's that do something.
var controlCommands = []remoteCommand{
	{name: "add_consumer", args: []remoteArgument{{"queue", textArgument}, {"exchange", textArgument}, {"exchange_type", textArgument}, {"routing_key", textArgument}},
		required: 1, usage: "queue [exchange [type [routing_key]]]", short: "receive from one more queue"},
	{name: "autoscale", args: []remoteArgument{{"max", intArgument}, {"min", intArgument}}, usage: "[max [min]]", short: "set the bounds of autoscale"},
	{name: "cancel_consumer", args: []remoteArgument{{"queue", textArgument}}, required: 1, usage: "queue", short: "receive from a queue no longer"},
	{name: "disable_events", short: "send no events of tasks"},
	{name: "election", args: []remoteArgument{{"id", textArgument}, {"topic", textArgument}, {"action", textArgument}}, required: 2, usage: "id topic [action]",
		short: "one of the workers is to do the action"},
	{name: "enable_events", short: "send events of tasks"},
	{name: "heartbeat", short: "send a heartbeat event now"},
	{name: "pool_grow", args: []remoteArgument{{"n", intArgument}}, usage: "[n]", short: "add n slots, 1 if not given"},
	{name: "pool_restart", short: "restart the child processes of Python workers"},
	{name: "pool_shrink", args: []remoteArgument{{"n", intArgument}}, usage: "[n]", short: "take n slots away, 1 if not given"},
	{name: "rate_limit", args: []remoteArgument{{"task_name", textArgument}, {"rate_limit", textArgument}}, required: 2, usage: "task rate",
		short: "begin a task so often: 10/s, 5/m, 1/h, 0 for no limit"},
	{name: "revoke", variadic: "task_id", required: 1, usage: "id ...", short: "do not run these tasks"},
	{name: "revoke_by_stamped_headers", variadic: "headers", required: 1, usage: "header=value ...", short: "do not run tasks that carry these stamps"},
	{name: "shutdown", short: "stop warm; Python workers do not answer", silent: true},
	{name: "terminate", args: []remoteArgument{{"signal", textArgument}}, variadic: "task_id", required: 2, usage: "signal id ...",
		short: "revoke, and end what runs"},
	{name: "time_limit", args: []remoteArgument{{"task_name", textArgument}, {"soft", floatArgument}, {"hard", floatArgument}}, required: 2,
		usage: "task soft [hard]", short: "set the time limits of a task, in seconds"},
}

// listRemoteCommands is for a command's help.
func listRemoteCommands(all []remoteCommand) string {
	var b strings.Builder
	for _, c := range all {
		fmt.Fprintf(&b, "  %-45s %s\n", strings.TrimSpace(c.name+" "+c.usage), c.short)
	}
	return b.String()
}

// remoteCall finds the command and reads its arguments. With custom an unknown name is one of the program's own, whose arguments
// are name=value, the value as JSON.
func remoteCall(kind string, all []remoteCommand, words []string, custom bool) (*remoteCommand, map[string]any, error) {
	name, texts := words[0], words[1:]
	i := slices.IndexFunc(all, func(c remoteCommand) bool { return c.name == name })
	if i < 0 && custom {
		arguments, err := optionMap("custom", texts)
		return &remoteCommand{name: name}, arguments, err
	}
	if i < 0 {
		names := make([]string, len(all))
		for i, c := range all {
			names[i] = c.name
		}
		return nil, nil, usage(fmt.Sprintf("unknown %s command %s", kind, printable(name)), "known are "+strings.Join(names, ", "),
			"one that the workers' program has of its own needs --custom")
	}
	c := &all[i]
	arguments := map[string]any{}
	if len(texts) < c.required || len(texts) > len(c.args) && c.variadic == "" {
		todo := strings.TrimSpace("write: " + kind + " " + name + " " + c.usage)
		if n := len(texts); n > len(c.args) && new(seconds).Set(texts[n-1]) == nil {
			todo += "; if " + texts[n-1] + " is the time of --watch: --watch=" + texts[n-1]
		}
		return nil, nil, usage(fmt.Sprintf("%s takes other arguments than these %d", name, len(texts)), "", todo)
	}
	for n, text := range texts {
		if n >= len(c.args) {
			arguments[c.variadic] = texts[n:]
			break
		}
		v, err := c.args[n].read(text)
		if err != nil {
			return nil, nil, usage(name+": "+c.args[n].name+": "+err.Error(), "", "write: "+kind+" "+name+" "+c.usage)
		}
		arguments[c.args[n].name] = v
	}
	if c.variadic != "" && arguments[c.variadic] == nil {
		arguments[c.variadic] = []string{}
	}
	return c, arguments, nil
}
