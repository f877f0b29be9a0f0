package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/monitor"
	"github.com/gelery/gelery/protocol"
)

const remoteExitCodes = `Exit codes: 0 done, 1 failed, 2 wrong usage, 69 no worker answered or the broker is unreachable, 130 interrupted. What a
worker could not do is told on standard error and is no failure of the command, as with celery.`

const destinationUsage = "node `names` of the workers that are meant, separated by commas (default all)"

// nodes are the node names of the workers that are meant; none: all. An empty name, as of a variable that is not set, is refused: it
// would mean nobody to celery, and everybody here.
type nodes []string

func (n *nodes) String() string { return strings.Join(*n, ",") }
func (n *nodes) Type() string   { return "names" }

func (n *nodes) Set(text string) error {
	for name := range strings.SplitSeq(text, ",") {
		if name == "" {
			return errors.New("a node name is empty")
		}
		*n = append(*n, name)
	}
	return nil
}

func (n nodes) want(e *protocol.Event) bool { return len(n) == 0 || slices.Contains(n, e.Hostname) }

// pattern is one of node names; "": there is none. One that is given is not empty, as a name is not.
type pattern string

func (p *pattern) String() string { return string(*p) }
func (p *pattern) Type() string   { return "text" }

func (p *pattern) Set(text string) error {
	if text == "" {
		return errors.New("it is empty")
	}
	*p = pattern(text)
	return nil
}

// remoteFlags are the options of the commands that ask workers.
type remoteFlags struct {
	destination nodes
	pattern     pattern
	matcher     string
	timeout     seconds
	json        bool
	custom      bool
	output      output
	watch       watch
}

func (f *remoteFlags) add(cmd *cobra.Command) {
	f.addTarget(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&f.json, "json", "j", false, "the same as --output json")
	f.output.add(cmd, outputTable, outputPlain, outputJSON, outputJSONL, outputYAML)
	f.watch.add(cmd)
	addBrokerFlags(cmd)
}

// addTarget adds who is asked, and how long replies are waited for.
func (f *remoteFlags) addTarget(cmd *cobra.Command) {
	f.timeout = seconds(monitor.DefaultTimeout)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.VarP(&f.destination, "destination", "d", destinationUsage)
	flags.Var(&f.pattern, "pattern", "only workers whose node name matches `text`: web* for a glob")
	flags.StringVar(&f.matcher, "matcher", "glob", "what the pattern is: glob, pcre")
	flags.VarP(&f.timeout, "timeout", "t", "how long to wait for the next reply")
}

func (f *remoteFlags) addCustom(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.custom, "custom", false, "the command is the workers' program's own; arguments are name=value, the value as JSON")
}

// check refuses what makes no sense, before anything is tried.
func (f *remoteFlags) check() error {
	if f.json {
		f.output = outputJSON
	}
	if err := monitor.CheckPattern(string(f.pattern), f.matcher); err != nil {
		return usage("--pattern or --matcher: "+err.Error(), "a Python worker that cannot read a pattern hears no more commands", "use a simple --pattern, a glob if it can be one")
	}
	if f.timeout.duration() <= 0 {
		return usage("--timeout is not more than 0", "", "")
	}
	return f.watch.check()
}

// connectControl opens the broker to ask workers.
func (a *app) connectControl(ctx context.Context, f *remoteFlags) (*monitor.Control, func(), error) {
	config := a.config(a.brokerURL("WRITE"), "", quietLogger(a.stderr))
	client, closeClient, err := connectBriefly(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	control, err := monitor.NewControl(client.Transport(), monitor.ControlConfig{Serializer: client.Config().Serializer,
		Accept: []string{"json", client.Config().Serializer}, Timeout: f.timeout.duration()})
	if err != nil {
		closeClient()
		return nil, nil, usage(err.Error(), "", "")
	}
	if len(f.destination) > 0 {
		control = control.To(f.destination...)
	}
	if f.pattern != "" {
		control = control.Matching(string(f.pattern), f.matcher)
	}
	return control, closeClient, nil
}

// remoteView is how the replies to a command are shown.
type remoteView struct {
	heading []string
	rows    func(r monitor.Reply) ([][]string, error) // nil: one row with the reply as it is
	asList  bool                                      // JSON as celery control prints it: a list of {node: reply}
	silent  bool                                      // no reply is no failure
}

// errSilent ends the wait for a broker that has gone since it was connected to.
var errSilent = errors.New("the broker does not answer")

// ask asks once, shows the replies and tells how many there were. Those of -o jsonl are shown as they come. An error of the broker's
// is unanswered.
func (a *app) ask(ctx context.Context, control *monitor.Control, f *remoteFlags, method string, arguments map[string]any, v remoteView) (int, error) {
	asking, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	limit := connectTimeout + f.timeout.duration()
	silence := time.AfterFunc(limit, func() { stop(errSilent) })
	defer silence.Stop()
	var replies []monitor.Reply
	for r, err := range control.Ask(asking, method, arguments) {
		if err != nil && ctx.Err() == nil && errors.Is(context.Cause(asking), errSilent) {
			err = &failure{exitUnavailable, errSilent.Error(), fmt.Sprintf("%v in %v", err, limit), "see that it runs and can be reached"}
		}
		if err != nil {
			return len(replies), &unanswered{err}
		}
		silence.Stop() // who reads the output may take his time
		replies = append(replies, r)
		if f.output == outputJSONL {
			if err := writeReply(a, r); err != nil {
				return len(replies), err
			}
		}
		silence.Reset(limit)
	}
	switch f.output {
	case outputJSONL:
	case outputJSON, outputYAML:
		document, err := replyDocument(replies, v.asList)
		if err == nil && (len(replies) > 0 || f.watch > 0) {
			err = f.watch.document(f.output)(a.stdout, document)
		}
		if err != nil {
			return len(replies), err
		}
	default:
		if err := a.showReplies(replies, f.output, v); err != nil {
			return len(replies), err
		}
	}
	return len(replies), nil
}

// replyLine is a line of -o jsonl.
type replyLine struct {
	Node  string          `json:"node"`
	Reply json.RawMessage `json:"reply"`
}

func writeReply(a *app, r monitor.Reply) error {
	text, err := wireJSON(r.Value)
	if err != nil {
		return err
	}
	return writeJSON(a.stdout, replyLine{r.Node, text})
}

// replyDocument is what celery inspect and control print with --json.
func replyDocument(replies []monitor.Reply, asList bool) (any, error) {
	list, all := make([]map[string]json.RawMessage, 0, len(replies)), map[string]json.RawMessage{}
	for _, r := range replies {
		text, err := wireJSON(r.Value)
		if err != nil {
			return nil, fmt.Errorf("reply of %s: %w", r.Node, err)
		}
		list = append(list, map[string]json.RawMessage{r.Node: text})
		all[r.Node] = text
	}
	if asList {
		return list, nil
	}
	return all, nil
}

// showReplies prints a table. Errors go to standard error.
func (a *app) showReplies(replies []monitor.Reply, o output, v remoteView) error {
	replies = sortedReplies(replies)
	var rows [][]string
	for _, r := range replies {
		if err := r.Err(); err != nil {
			fmt.Fprintf(a.stderr, "%s: %s\n", a.name, oneLine(err.Error()))
			continue
		}
		more, err := [][]string(nil), error(nil)
		if v.rows != nil {
			more, err = v.rows(r)
		}
		if v.rows == nil || err != nil { // a reply of a shape that we do not know is shown as it is
			more = [][]string{append([]string{printable(r.Node)}, replyText(r.Value))}
		}
		if len(more) == 0 && !o.isPlain(a.stdout) { // it has answered: nothing
			more = [][]string{{printable(r.Node), "-"}}
		}
		rows = append(rows, more...)
	}
	if len(rows) == 0 && len(replies) > 0 {
		return nil // errors, which have been told
	}
	heading := v.heading
	if v.rows == nil {
		heading = []string{"NODE", "REPLY"}
	}
	return o.table(a.stdout, heading, rows)
}

// talk asks once, or again and again with --watch.
func (a *app) talk(ctx context.Context, f *remoteFlags, method string, arguments map[string]any, v remoteView) error {
	if err := f.check(); err != nil {
		return err
	}
	control, closeClient, err := a.connectControl(ctx, f)
	if err != nil {
		return err
	}
	defer closeClient()
	if f.watch > 0 {
		return a.repeat(ctx, f.watch, func() error {
			_, err := a.ask(ctx, control, f, method, arguments, v)
			return err
		})
	}
	n, err := a.ask(ctx, control, f, method, arguments, v)
	if err == nil && n == 0 && !v.silent {
		return noReply(f)
	}
	return err
}

// noReply is Celery's failure.
func noReply(f *remoteFlags) *failure {
	todo := "wait longer with --timeout, and see that workers use this broker and its virtual host or database"
	if len(f.destination) > 0 || f.pattern != "" {
		todo = "see with the command status which node names there are"
	}
	return &failure{exitUnavailable, "no nodes replied within " + f.timeout.duration().Round(time.Millisecond).String(), "", todo}
}
