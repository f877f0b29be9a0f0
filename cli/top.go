package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/monitor"
	"github.com/gelery/gelery/protocol"
)

func init() { commands = append(commands, topCommand) }

type topFlags struct {
	interval seconds
	shots    int
	tasks    int
	maxTasks int
	from     nodes
	output   output
}

func (f *topFlags) setDefaults() {
	f.interval, f.tasks, f.maxTasks = seconds(time.Second), 20, monitor.DefaultMaxTasks
}

func topCommand(a *app) *cobra.Command {
	f := &topFlags{}
	f.setDefaults()
	cmd := &cobra.Command{
		Use:     "top",
		GroupID: groupWatch,
		Short:   "Show workers and tasks on the whole screen, as they change",
		Long: `Show workers and tasks on the whole screen, as they change

It listens to events, see "events --help", and shows the workers that are heard of, the kinds of tasks, and the tasks heard of
last. It knows nothing of what was before. The phase of a task tells apart what Celery calls PENDING: "sent" waits in its
queue, "scheduled" for its eta, "reserved" for a slot, "lost" is with a worker that is silent. With --destination it hears these
workers alone, and not who sends tasks.

Ctrl-C ends it. Where the output goes elsewhere, each picture stands below the one before. -o json and jsonl print a picture a line:
{"totals", "workers", "tasks"}; -o yaml the same as documents with --- before each.

` + exitCodes,
		Example: `  gelery top
  gelery top --interval 5 --tasks 50
  gelery top -n 1 --output json`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error { return a.top(ctx, f) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.VarP(&f.from, "destination", "d", destinationUsage)
	flags.Var(&f.interval, "interval", "time between two pictures")
	flags.IntVarP(&f.shots, "iterations", "n", 0, "end after so many pictures")
	flags.IntVar(&f.tasks, "tasks", f.tasks, "show at most so many tasks; on a terminal as many as there is room for")
	flags.IntVar(&f.maxTasks, "max-tasks", f.maxTasks, "remember at most so many tasks")
	f.output.add(cmd, outputTable, outputJSON, outputJSONL, outputYAML)
	addBrokerFlags(cmd)
	return cmd
}

// The terminal's other screen, so that what was there comes back at the end, and without a cursor.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	homeScreen  = "\x1b[H"
	clearLine   = "\x1b[K"
	clearRest   = "\x1b[J"
)

// top listens in one goroutine and paints in another, which ends the first.
func (a *app) top(ctx context.Context, f *topFlags) error {
	if f.interval.duration() < 10*time.Millisecond || f.shots < 0 || f.tasks < 0 || f.maxTasks < 1 {
		return usage("--interval is below 0.01, --iterations or --tasks below 0, or --max-tasks below 1", "", "")
	}
	if err := f.output.only(outputTable, outputJSON, outputJSONL, outputYAML); err != nil {
		return err
	}
	state, err := monitor.NewState(monitor.StateConfig{MaxTasks: f.maxTasks})
	if err != nil {
		return usage(err.Error(), "", "")
	}
	listening, stop := context.WithCancelCause(ctx)
	painted := make(chan error, 1)
	screen := isTerminal(a.stdout) && f.output == ""
	go func() {
		err := a.paint(listening, f, state, screen)
		stop(errOr(err, errEnough))
		painted <- err
	}()
	err = a.receive(listening, func(events []protocol.Event) error {
		state.Apply(slices.DeleteFunc(events, func(e protocol.Event) bool { return !f.from.want(&e) }))
		return nil
	})
	stop(err)
	if failed := <-painted; failed != nil {
		return failed
	}
	if ctx.Err() == nil && context.Cause(listening) == errEnough { //nolint:errorlint // it is our own, as it is
		return nil
	}
	return err
}

func errOr(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// paint shows a picture after each interval, as many as are wanted or until ctx is done.
func (a *app) paint(ctx context.Context, f *topFlags, state *monitor.State, screen bool) error {
	if screen {
		fmt.Fprint(a.stdout, enterScreen)
		defer fmt.Fprint(a.stdout, leaveScreen)
	}
	ticker := time.NewTicker(f.interval.duration())
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		p := pictureOf(state, f.tasks)
		var err error
		switch {
		case f.output == outputJSON || f.output == outputJSONL || f.output == outputYAML:
			err = f.output.next(a.stdout, p)
		case screen:
			err = paintScreen(a.stdout, p)
		default:
			_, err = io.WriteString(a.stdout, strings.Join(p.lines(0), "\n")+"\n\n")
		}
		if err != nil || n == f.shots {
			return err
		}
	}
}

// picture is what `top -o json` prints.
type picture struct {
	Totals  monitor.Totals   `json:"totals"`
	Workers []monitor.Worker `json:"workers"`
	Tasks   []monitor.Task   `json:"tasks"` // the one heard of last first
}

func pictureOf(state *monitor.State, tasks int) *picture {
	p := &picture{Totals: state.Totals(), Workers: state.Workers(), Tasks: []monitor.Task{}}
	if tasks > 0 {
		p.Tasks = append(p.Tasks, state.Tasks(monitor.TaskQuery{Limit: tasks})...)
	}
	return p
}

// paintScreen paints over the picture before, as much as there is room for.
func paintScreen(w io.Writer, p *picture) error {
	rows, columns := terminalSize(w)
	var b strings.Builder
	b.WriteString(homeScreen)
	for i, line := range p.lines(columns) {
		if i >= rows-1 {
			break
		}
		b.WriteString(line + clearLine + "\r\n")
	}
	b.WriteString(clearRest)
	_, err := io.WriteString(w, b.String())
	return err
}

// lines are the picture as text, no line longer than the width, if there is one.
func (p *picture) lines(width int) []string {
	t := &p.Totals
	states := make([]string, 0, len(t.ByState))
	for _, s := range slices.Sorted(maps.Keys(t.ByState)) {
		states = append(states, fmt.Sprintf("%s %d", printable(s), t.ByState[s]))
	}
	lines := []string{fmt.Sprintf("workers %d of %d alive   events %d   tasks %d   %s", t.Alive, t.Workers, t.Events, t.Tasks, strings.Join(states, "  ")), ""}
	lines = append(lines, columnsOf([]string{"WORKER", "STATUS", "ACTIVE", "PROCESSED", "SUCCEEDED", "FAILED", "RETRIED", "LOAD", "SOFTWARE"}, p.workerRows())...)
	lines = append(append(lines, ""), columnsOf([]string{"TASK", "SENT", "RECEIVED", "STARTED", "SUCCEEDED", "FAILED", "RETRIED", "REVOKED", "RUNTIME"}, p.typeRows())...)
	lines = append(append(lines, ""), columnsOf([]string{"TIME", "ID", "TASK", "STATE", "PHASE", "WORKER", "DETAIL"}, p.taskRows())...)
	for i := range lines {
		lines[i] = cut(strings.TrimRight(lines[i], " "), width)
	}
	return lines
}

func (p *picture) workerRows() [][]string {
	rows := make([][]string, len(p.Workers))
	for i := range p.Workers {
		w := &p.Workers[i]
		status := "silent"
		switch {
		case w.Offline:
			status = "offline"
		case w.Alive:
			status = "online"
		}
		rows[i] = []string{w.Hostname, status, count(w.Active), count(w.Processed), count(w.Counts.Succeeded), count(w.Counts.Failed), count(w.Counts.Retried),
			fmt.Sprintf("%.2f", w.LoadAvg[0]), w.SwIdent + " " + w.SwVer}
	}
	return rows
}

// maxTypes is how many kinds of tasks are shown: those with the most events.
const maxTypes = 10

func (p *picture) typeRows() [][]string {
	all := func(c monitor.Counts) int64 {
		return c.Sent + c.Received + c.Started + c.Succeeded + c.Failed + c.Retried + c.Revoked + c.Rejected
	}
	names := slices.SortedFunc(maps.Keys(p.Totals.ByType), func(a, b string) int {
		if n := all(p.Totals.ByType[b]) - all(p.Totals.ByType[a]); n != 0 {
			return int(max(min(n, 1), -1))
		}
		return strings.Compare(a, b)
	})
	var rows [][]string
	for _, name := range names[:min(len(names), maxTypes)] {
		c := p.Totals.ByType[name]
		mean := "-"
		if c.Succeeded > 0 {
			mean = fmt.Sprintf("%.3fs", c.Runtime/float64(c.Succeeded))
		}
		rows = append(rows, []string{firstOf(name, "(name not heard)"), count(c.Sent), count(c.Received), count(c.Started), count(c.Succeeded), count(c.Failed),
			count(c.Retried), count(c.Revoked), mean})
	}
	return rows
}

func (p *picture) taskRows() [][]string {
	rows := make([][]string, len(p.Tasks))
	for i := range p.Tasks {
		t := &p.Tasks[i]
		detail := firstOf(t.Exception, t.Args)
		if t.State == monitor.StateSuccess {
			detail = fmt.Sprintf("%.3fs %s", t.Runtime, t.Result)
		}
		rows[i] = []string{t.Timestamp.Local().Format("15:04:05"), t.ID, firstOf(t.Name, "-"), t.State, string(t.Phase), firstOf(t.Worker, "-"), detail}
	}
	return rows
}

func count(n int64) string { return strconv.FormatInt(n, 10) }
