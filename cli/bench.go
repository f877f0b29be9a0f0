package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/redisserver"
)

func init() { commands = append(commands, benchCommand) }

// benchDocument is what `bench -o json` prints. A measure that was not asked for, or that the broker has no means for,
// is left out.
type benchDocument struct {
	Broker      string        `json:"broker"` // redacted
	Tasks       int           `json:"tasks"`
	Concurrency int           `json:"concurrency"`
	Enqueue     *benchEnqueue `json:"enqueue,omitempty"`
	Drain       *benchDrain   `json:"drain,omitempty"`
	Latency     *benchLatency `json:"latency,omitempty"`
	Memory      *benchMemory  `json:"memory,omitempty"`
}

type benchEnqueue struct {
	Single    float64 `json:"single_per_second"`    // Send, one after the other
	Pipelined float64 `json:"pipelined_per_second"` // SendBatch of 100
}

type benchDrain struct {
	Rate float64 `json:"per_second"` // from the worker's start until every result is stored and its message acknowledged
}

type benchLatency struct {
	Rate int     `json:"per_second"` // sent
	P50  float64 `json:"p50_ms"`     // from before Send until the result has been pushed
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

type benchMemory struct {
	Bytes float64 `json:"broker_bytes_per_task"` // what the broker's memory grew by for each task that waits
}

var benchMeasures = []string{"enqueue", "drain", "latency", "memory"}

const (
	benchTasks       = 20_000
	benchConcurrency = 10
	benchTimeout     = 10 * time.Minute
)

type benchFlags struct {
	tasks, concurrency int
	only               []string
	output             output
}

func benchCommand(a *app) *cobra.Command {
	f := &benchFlags{}
	cmd := &cobra.Command{
		Use:     "bench",
		GroupID: groupOperate,
		Short:   "Measure how fast tasks are sent, run and answered",
		Long: `Measure how fast tasks are sent, run and answered

  enqueue  tasks sent in a second, one after the other and in batches of 100
  drain    tasks run in a second by a worker inside this process, from its start until every result is stored and every
           message acknowledged; all results are read and checked afterwards
  latency  milliseconds from sending to the pushed result, at 200 tasks in a second
  memory   bytes of the broker's memory for each task that waits (Redis only; whoever else uses it meanwhile is counted in)

Without --broker it starts a redis-server of its own and removes it; the variables of the broker are not heeded, so that
nobody measures a production broker by accident. With one it uses a queue of its own, gelery-bench-..., and removes what
it has stored. Results are stored in --result-backend, by default where the broker is.
-o json prints {"broker", "tasks", "concurrency", "enqueue": {"single_per_second", "pipelined_per_second"},
"drain": {"per_second"}, "latency": {"per_second", "p50_ms", "p99_ms", "max_ms"}, "memory": {"broker_bytes_per_task"}}.

` + exitCodes,
		Example: `  gelery bench
  gelery bench --tasks 5000 --concurrency 100 --only drain,latency
  gelery bench --broker redis://localhost:6379/9 --output json`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if err := f.validate(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, benchTimeout)
			defer cancel()
			return a.bench(ctx, f)
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&f.tasks, "tasks", benchTasks, "`number` of tasks of a measure; a tenth of it where they go one by one")
	flags.IntVarP(&f.concurrency, "concurrency", "c", benchConcurrency, "`number` of tasks the worker runs at once")
	flags.StringSliceVar(&f.only, "only", benchMeasures, "`measures` to take, separated by commas")
	f.output.add(cmd, outputTable, outputPlain, outputJSON)
	addBrokerFlags(cmd)
	addBackendFlags(cmd)
	return cmd
}

func (f *benchFlags) validate() error {
	switch {
	case f.tasks < 10 || f.tasks > 1_000_000:
		return usage(fmt.Sprintf("--tasks %d is not from 10 to 1000000", f.tasks), "", "")
	case f.concurrency < 1:
		return usage(fmt.Sprintf("--concurrency %d is not at least 1", f.concurrency), "", "")
	}
	for _, m := range f.only {
		if !slices.Contains(benchMeasures, m) {
			return usage("--only "+m+" is no measure", "", "choose from "+strings.Join(benchMeasures, ","))
		}
	}
	return nil
}

// bench takes the measures, on a server of its own if none is given, and prints them.
func (a *app) bench(ctx context.Context, f *benchFlags) (err error) {
	broker := a.broker
	if broker == "" {
		server, err := redisserver.Start(ctx)
		if errors.Is(err, redisserver.ErrNotInstalled) {
			return &failure{exitFailed, "there is no broker to measure", "none is given, and there is no redis-server on PATH to start",
				"give one with --broker, or install Redis"}
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		broker = server.URL
		fmt.Fprintln(a.stderr, "measuring a redis-server of its own on "+server.Addr)
	}
	b, err := a.newBench(ctx, f, broker, firstOf(a.backend, sameServer(broker)), quietLogger(a.stderr))
	if err != nil {
		return err
	}
	document := benchDocument{Broker: brokerurl.Redact(broker), Tasks: f.tasks, Concurrency: f.concurrency}
	err = b.measure(ctx, f.only, &document)
	if err = errors.Join(err, b.close(ctx)); err != nil {
		return err
	}
	if f.output == outputJSON {
		return writeJSON(a.stdout, document)
	}
	return f.output.table(a.stdout, []string{"MEASURE", "VALUE", "UNIT"}, document.rows())
}

// sameServer is the result backend for a broker: the same URL if there is a driver for results there.
func sameServer(broker string) string {
	scheme, _, _ := strings.Cut(broker, ":")
	if slices.Contains(backends.Schemes(), scheme) {
		return broker
	}
	return ""
}

func (d *benchDocument) rows() [][]string {
	var rows [][]string
	add := func(name string, value float64, digits int, unit string) {
		rows = append(rows, []string{name, strconv.FormatFloat(value, 'f', digits, 64), unit})
	}
	if e := d.Enqueue; e != nil {
		add("enqueue, one by one", e.Single, 0, "tasks/s")
		add("enqueue, batches of 100", e.Pipelined, 0, "tasks/s")
	}
	if d.Drain != nil {
		add(fmt.Sprintf("drain, concurrency %d", d.Concurrency), d.Drain.Rate, 0, "tasks/s")
	}
	if l := d.Latency; l != nil {
		add(fmt.Sprintf("latency p50 at %d tasks/s", l.Rate), l.P50, 2, "ms")
		add(fmt.Sprintf("latency p99 at %d tasks/s", l.Rate), l.P99, 2, "ms")
		add(fmt.Sprintf("latency max at %d tasks/s", l.Rate), l.Max, 2, "ms")
	}
	if d.Memory != nil {
		add("broker memory", d.Memory.Bytes, 0, "bytes/task")
	}
	return rows
}
