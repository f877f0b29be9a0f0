package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/monitor"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

func init() { commands = append(commands, eventsCommand) }

type eventsFlags struct {
	dump   bool
	types  []string
	from   nodes
	limit  int
	output output
	top    topFlags
}

func eventsCommand(a *app) *cobra.Command {
	f := &eventsFlags{}
	cmd := &cobra.Command{
		Use:     "events",
		GroupID: groupWatch,
		Short:   "Show what workers and their tasks do, as it happens",
		Long: `Show what workers and their tasks do, as it happens

On a terminal it is the screen of the command top; with --dump, with -o, and where the output goes elsewhere, a line for each
event. Workers in Python and in Go are heard alike. Events of tasks are sent by workers that run with -E, or are told to by
"control enable_events"; task-sent by clients with task_send_sent_event, which are no workers: --destination leaves their events out,
unless it names them. There, -d is celery's short form of --dump.

-o plain prints the time, the type, the node, the task's id, its name if the event tells it, and what else the event holds. -o
jsonl prints each event as one JSON object with the members that Celery gives it, in the order they were received; -o yaml the
same as documents with --- before each.

` + exitCodes,
		Example: `  gelery events
  gelery events --dump --types task-failed,task-retried
  gelery events --output jsonl --limit 100`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if err := f.output.only(outputPlain, outputJSON, outputJSONL, outputYAML); err != nil {
				return err
			}
			if f.limit < 0 {
				return usage("--limit is less than 0", "", "")
			}
			if !f.dump && f.output == "" && len(f.types) == 0 && f.limit == 0 && isTerminal(a.stdout) {
				f.top.from = f.from
				return a.top(ctx, &f.top)
			}
			return a.dumpEvents(ctx, f)
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&f.dump, "dump", "d", false, "a line for each event, on a terminal too")
	flags.StringSliceVar(&f.types, "types", nil, "only events of these `types`, separated by commas: task-failed,worker-offline; task: all of tasks")
	flags.Var(&f.from, "destination", destinationUsage)
	flags.IntVarP(&f.limit, "limit", "n", 0, "end after so many events")
	f.output.add(cmd, outputPlain, outputJSON, outputJSONL, outputYAML)
	f.top.setDefaults()
	addBrokerFlags(cmd)
	return cmd
}

// errEnough ends a capture.
var errEnough = errors.New("enough events")

// receive hears events until ctx is done or the function fails.
func (a *app) receive(ctx context.Context, handle func([]protocol.Event) error) error {
	config := a.config(a.brokerURL("READ"), "", quietLogger(a.stderr))
	client, closeClient, err := connectBriefly(ctx, config)
	if err != nil {
		return err
	}
	defer closeClient()
	receiver, err := monitor.NewReceiver(client.Transport(), monitor.ReceiverConfig{Exchange: client.Config().EventExchange, Logger: config.Logger})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return receiver.Capture(ctx, func(events []protocol.Event) {
		if ctx.Err() != nil {
			return
		}
		if err := handle(events); err != nil {
			cancel(err)
		}
	})
}

func (a *app) dumpEvents(ctx context.Context, f *eventsFlags) error {
	left := f.limit
	err := a.receive(ctx, func(events []protocol.Event) error {
		for i := range events {
			e := &events[i]
			if !f.from.want(e) || len(f.types) > 0 && !slices.Contains(f.types, e.Type) && !slices.Contains(f.types, e.Group()) {
				continue
			}
			if err := writeEvent(a.stdout, e, f.output); err != nil {
				return err
			}
			if left--; left == 0 {
				return errEnough
			}
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// writeEvent writes one line, or one document of YAML.
func writeEvent(w io.Writer, e *protocol.Event, o output) error {
	if o == "" || o == outputPlain {
		_, err := fmt.Fprintln(w, eventText(e))
		return err
	}
	for i := range e.Fields {
		e.Fields[i].Value = finite(e.Fields[i].Value)
	}
	line, err := protocol.AppendEvent(nil, e)
	switch {
	case err == nil && o == outputYAML:
		err = o.next(w, json.RawMessage(line))
	case err == nil:
		_, err = w.Write(append(line, '\n'))
	}
	return err
}

// eventText is an event as columns, with a tab between.
func eventText(e *protocol.Event) string {
	columns := []string{e.Timestamp.UTC().Format(time.RFC3339Nano), printable(e.Type), printable(e.Hostname)}
	if id := e.Text("uuid"); id != "" {
		columns = append(columns, printable(id))
	}
	if name := e.Text("name"); name != "" {
		columns = append(columns, printable(name))
	}
	var rest []string
	for _, f := range e.Fields {
		if f.Name != "uuid" && f.Name != "name" && f.Value != nil && f.Value != "" {
			rest = append(rest, printable(f.Name)+"="+value.Repr(f.Value, maxEventCell))
		}
	}
	return strings.Join(append(columns, strings.Join(rest, " ")), "\t")
}

// maxEventCell is how many bytes of a field are shown in a line.
const maxEventCell = 500
