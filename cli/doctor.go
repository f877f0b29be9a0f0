package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

type doctorFlags struct {
	queues []string
	strict bool
	output output
}

func doctorCommand(a *app) *cobra.Command {
	f := &doctorFlags{}
	cmd := &cobra.Command{
		Use:     "doctor",
		GroupID: groupOperate,
		Short:   "Look for what makes a broker fail or lose messages",
		Long: `Look for what makes a broker fail or lose messages

It examines the broker and, if one is given, the result backend: versions, permissions, alarms, persistence, eviction,
the types of queues, who consumes, what is in quarantine. Nothing is changed. A finding is "ok", a "warning" (works, and
may cost messages or time one day), an "error" (does not work, or loses messages) or "unknown"; the last two columns of
-o plain are what was found and what to do. -o json prints [{"subject", "health", "detail", "advice" if any}].

An error is exit code 1, with --strict a warning too; a server that cannot be reached is 69.

` + exitCodes,
		Example: `  gelery doctor
  gelery --broker amqp://localhost// doctor --queues celery,mail --output json`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error { return a.doctor(ctx, f) }),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVarP(&f.queues, "queues", "Q", nil, "`names`, separated by commas (default all the broker knows)")
	flags.BoolVar(&f.strict, "strict", false, "let warnings fail as errors do")
	f.output.add(cmd, outputTable, outputPlain, outputJSON)
	addBrokerFlags(cmd)
	addBackendFlags(cmd)
	return cmd
}

func (a *app) doctor(ctx context.Context, f *doctorFlags) error {
	log := quietLogger(a.stderr)
	config := a.config(a.brokerURL("READ"), "", log)
	found, unreachable, err := a.examine(ctx, "broker", config, f.queues)
	if err != nil {
		return err
	}
	if url := a.backendURL(); url != "" {
		config := a.config("", url, log)
		more, alsoUnreachable, err := a.examine(ctx, "result backend", config, nil)
		if err != nil {
			return err
		}
		for i := range more {
			more[i].Subject = "result backend: " + more[i].Subject
		}
		found, unreachable = append(found, more...), unreachable || alsoUnreachable
	}
	code := exitOK
	for i := range found {
		d := &found[i]
		d.Subject, d.Detail, d.Advice = oneLine(d.Subject), oneLine(d.Detail), oneLine(d.Advice) // foreign texts, with URLs in them
		if d.Health == transport.Broken || f.strict && d.Health == transport.Doubtful {
			code = exitFailed
		}
	}
	if unreachable {
		code = exitUnavailable
	}
	if err := a.printFindings(f.output, found); err != nil || code == exitOK {
		return err
	}
	return silent(code)
}

// examine looks at one server. One that cannot be used is a finding too.
func (a *app) examine(ctx context.Context, what string, config task.Config, queues []string) (
	found []transport.Finding, unreachable bool, err error) {
	connection := func(health transport.Health, detail, advice string) []transport.Finding {
		return []transport.Finding{{Subject: "connection", Health: health, Detail: detail, Advice: advice}}
	}
	url := config.Broker + config.Backend
	if what == "result backend" && strings.HasPrefix(url, "rpc:") {
		return connection(transport.Healthy, "rpc: results travel through the broker", ""), false, nil
	}
	client, closeClient, err := connectBriefly(ctx, config)
	if err != nil {
		f, ok := errors.AsType[*failure](asFailure(ctx, err))
		if !ok || f.code != exitUnavailable && f.code != exitFailed {
			return nil, false, err
		}
		return connection(transport.Broken, f.what+": "+f.why, f.todo), f.code == exitUnavailable, nil
	}
	defer closeClient()
	server := any(client.Transport())
	if what == "result backend" {
		server = client.Backend()
	}
	examiner, ok := server.(transport.Examiner)
	if !ok {
		return connection(transport.Unknown, "the "+what+" "+brokerurl.Redact(url)+" cannot be examined: its driver does not offer it", ""), false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, operateTimeout)
	defer cancel()
	found, err = examiner.Examine(ctx, queues)
	return found, false, err
}

// printFindings prints a table with the advice below each finding, or one line a finding.
func (a *app) printFindings(o output, found []transport.Finding) error {
	if o == outputJSON {
		return writeJSON(a.stdout, found)
	}
	var rows [][]string
	for _, f := range found {
		row := []string{string(f.Health), printable(f.Subject), printable(f.Detail)}
		switch {
		case o.isPlain(a.stdout):
			row = append(row, printable(f.Advice))
		case f.Advice != "":
			rows = append(rows, row)
			row = []string{"", "", "try: " + printable(f.Advice)}
		}
		rows = append(rows, row)
	}
	return o.table(a.stdout, []string{"HEALTH", "SUBJECT", "FOUND"}, rows)
}
