package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/monitor"
)

func init() { commands = append(commands, graphCommand) }

func graphCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "graph",
		GroupID: groupWatch,
		Short:   "Draw the cluster, for Graphviz",
		Long: `Draw the cluster, for Graphviz

Graphs are printed in the language DOT, their only form. Celery's "graph bootsteps" has no counterpart: a Go worker has no
bootsteps.

` + exitCodes,
		Example: `  gelery graph workers | dot -Tsvg > workers.svg`,
		Args:    cobra.ArbitraryArgs, // an unknown command is answered by RunE
		RunE:    noSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(graphWorkersCommand(a))
	return cmd
}

// graphFlags are the options of `graph workers`: celery's wmax and tmax.
type graphFlags struct {
	remote     remoteFlags
	maxWorkers int
	maxSlots   int
}

func graphWorkersCommand(a *app) *cobra.Command {
	f := &graphFlags{}
	cmd := &cobra.Command{
		Use:   "workers",
		Short: "Draw broker, result backend and the workers that answer, with their slots",
		Long: `Draw broker, result backend and the workers that answer, with their slots

It prints a graph in the language DOT, its only form; Graphviz makes a picture of it. More workers, or more slots of a
worker, than fit are one node that tells how many.

` + remoteExitCodes,
		Example: `  gelery graph workers | dot -Tsvg > workers.svg
  gelery graph workers --wmax 20 --tmax 0`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error { return a.graphWorkers(ctx, f) }),
	}
	f.remote.addTarget(cmd)
	flags := cmd.Flags()
	flags.IntVar(&f.maxWorkers, "wmax", 10, "draw at most so many workers")
	flags.IntVar(&f.maxSlots, "tmax", 3, "draw at most so many slots of a worker, 0 for none")
	addBrokerFlags(cmd)
	return cmd
}

func (a *app) graphWorkers(ctx context.Context, f *graphFlags) error {
	if f.maxWorkers < 1 || f.maxSlots < 0 {
		return usage("--wmax is less than 1, or --tmax less than 0", "", "")
	}
	if err := f.remote.check(); err != nil {
		return err
	}
	control, closeClient, err := a.connectControl(ctx, &f.remote)
	if err != nil {
		return err
	}
	defer closeClient()
	answers, err := control.Stats(ctx)
	if err != nil {
		return err
	}
	if len(answers) == 0 {
		return noReply(&f.remote)
	}
	for _, w := range answers {
		if w.Err != nil { // it is drawn without slots
			fmt.Fprintf(a.stderr, "%s: %s\n", a.name, oneLine(w.Err.Error()))
		}
	}
	_, err = fmt.Fprint(a.stdout, workersGraph(brokerurl.Redact(a.brokerURL("READ")), brokerurl.Redact(a.backendURL()), answers, f.maxWorkers, f.maxSlots))
	return err
}

// workersGraph is the graph in DOT.
func workersGraph(broker, backend string, workers []monitor.Answer[monitor.Stats], maxWorkers, maxSlots int) string {
	var b strings.Builder
	b.WriteString("digraph workers {\n    rankdir=LR;\n    node [shape=box, style=filled, fillcolor=white];\n")
	node := func(id, label, shape string) {
		fmt.Fprintf(&b, "    %s [label=%q, shape=%s];\n", id, label, shape) // Go's quotes are such as DOT reads
	}
	node("broker", broker, "circle")
	if backend != "" {
		node("backend", backend, "folder")
	}
	for i, w := range workers {
		id, label := "worker"+strconv.Itoa(i), w.Node
		last := i == maxWorkers-1 && len(workers) > maxWorkers
		if last {
			label = plural(int64(len(workers)-i), "more worker")
		}
		node(id, label, "box")
		fmt.Fprintf(&b, "    %s -> broker;\n", id)
		if backend != "" {
			fmt.Fprintf(&b, "    %s -> backend;\n", id)
		}
		if last {
			break
		}
		slots(&b, id, &w.Value, maxSlots)
	}
	b.WriteString("}\n")
	return b.String()
}

// slots draws the slots of a worker.
func slots(b *strings.Builder, worker string, s *monitor.Stats, most int) {
	n := int64(0)
	if s.Pool.MaxConcurrency != nil {
		n = *s.Pool.MaxConcurrency
	}
	for i := range min(n, int64(most)) {
		label := "slot " + strconv.FormatInt(i+1, 10)
		last := i == int64(most)-1 && n > int64(most)
		if last {
			label = plural(n-i, "more slot")
		}
		fmt.Fprintf(b, "    %[1]sslot%[2]d [label=%[3]q, shape=oval];\n    %[1]sslot%[2]d -> %[1]s [arrowhead=none];\n", worker, i, label)
	}
}
