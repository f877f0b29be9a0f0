package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/settings"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

type callFlags struct {
	args, kwargs                string
	queue, exchange, routingKey string
	eta, expires                string
	countdown                   seconds
	taskID                      string
	priority                    int
	wait                        bool
	timeout                     seconds
	output                      output
	given                       func(flag string) bool
}

func callCommand(a *app) *cobra.Command {
	f := &callFlags{}
	cmd := &cobra.Command{
		Use:     "call TASK",
		GroupID: groupCall,
		Short:   "Send a task by name and print its id",
		Long: `Send a task by name and print its id

The task need not be known here. With --wait the result is printed instead of the id, as JSON; a task that failed gives
its traceback on standard error and exit code 1. -o json prints {"task_id"}, with --wait the document that
"result -o json" prints.

` + exitCodes,
		Example: `  gelery call dev.add --args '[2, 3]'
  gelery --result-backend redis://localhost:6379/1 call dev.add --kwargs '{"x": 2, "y": 3}' --wait --timeout 10
  gelery call mail.send --args '["you@example.com"]' --queue mail --countdown 1m30s --expires +1h`,
		Args: exactlyOne("the name of a task"),
		RunE: a.command(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			f.given = cmd.Flags().Changed
			return a.call(ctx, f, args[0])
		}),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return a.mux.Names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.args, "args", "a", "", "positional arguments as a JSON `list`")
	flags.StringVarP(&f.kwargs, "kwargs", "k", "", "keyword arguments as a JSON `object`")
	flags.StringVarP(&f.queue, "queue", "q", "", "`name` of the queue (default celery)")
	flags.StringVar(&f.exchange, "exchange", "", "`name` of the exchange; needs --routing-key")
	flags.StringVar(&f.routingKey, "routing-key", "", "routing `key`")
	flags.Var(&f.countdown, "countdown", "start no earlier than this after now")
	flags.StringVar(&f.eta, "eta", "", "start no earlier than this `time`: ISO 8601, Unix seconds or +10m")
	flags.StringVar(&f.expires, "expires", "", "do not start after this `time`: seconds from now, ISO 8601 or +10m")
	addSetting(cmd, "serializer", "", "`name` of the serializer: json, msgpack, yaml", "task_serializer")
	addSetting(cmd, "compression", "", "`name` of the compression: gzip, zstd, brotli, ...", "task_compression")
	flags.IntVar(&f.priority, "priority", 0, "0 to 255; on Redis 0 to 9, the lowest first")
	flags.StringVar(&f.taskID, "task-id", "", "`id` of the task (default a random UUID)")
	flags.BoolVar(&f.wait, "wait", false, "wait for the result and print it")
	flags.Var(&f.timeout, "timeout", "with --wait: how long (default for ever)")
	f.output.add(cmd, outputPlain, outputJSON)
	addBrokerFlags(cmd)
	addBackendFlags(cmd)
	addQueueFlags(cmd)
	return cmd
}

func exactlyOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			return nil
		}
		return usage(fmt.Sprintf("%s takes one argument, %s, not %d", cmd.CommandPath(), what, len(args)), "",
			"see "+cmd.CommandPath()+" --help")
	}
}

func (a *app) call(ctx context.Context, f *callFlags, name string) error {
	args, kwargs, err := f.arguments()
	if err != nil {
		return err
	}
	options, err := f.options(time.Now())
	if err != nil {
		return err
	}
	backend := ""
	if f.wait {
		if backend = a.backendURL(); backend == "" {
			return noBackend("--wait needs a result backend")
		}
	}
	config := a.config(a.brokerURL("WRITE"), backend, quietLogger(a.stderr))
	config.PublishTimeout = connectTimeout
	client, closeClient, err := connectBriefly(ctx, config)
	if err != nil {
		return err
	}
	defer closeClient()
	result, err := client.Send(ctx, name, args, kwargs, options...)
	if err != nil {
		return sendFailure(err, config.Broker)
	}
	if f.wait {
		return a.printResult(ctx, result, f.output, f.timeout.duration())
	}
	if f.output == outputJSON {
		return writeJSON(a.stdout, struct {
			TaskID string `json:"task_id"`
		}{result.ID()})
	}
	_, err = fmt.Fprintln(a.stdout, result.ID())
	return err
}

// sendFailure tells a broker that went away from a call that cannot be sent.
func sendFailure(err error, broker string) error {
	if f := refusal(err); f.todo != "" {
		return f
	}
	if p, ok := errors.AsType[*transport.PublishError](err); ok {
		f := unreachable("broker", broker, p.Err)
		if p.InDoubt {
			f.why += " (the task may have been sent nevertheless)"
		}
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return unreachable("broker", broker, err)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return usage(err.Error(), "", "")
}

func noBackend(what string) *failure {
	return usage(what, "results are thrown away where no backend is configured",
		"give --result-backend URL or set CELERY_RESULT_BACKEND, the same as the workers have")
}

// arguments decodes --args and --kwargs with the task serializer's own JSON reader, so that a big integer stays one and
// 1.0 stays a float.
func (f *callFlags) arguments() (args []any, kwargs map[string]any, err error) {
	if f.args != "" {
		if args, err = decodeFlag[[]any]("--args", f.args, "a JSON list", "--args '[2, 3]'"); err != nil {
			return nil, nil, err
		}
	}
	if f.kwargs != "" {
		kwargs, err = decodeFlag[map[string]any]("--kwargs", f.kwargs, "a JSON object", `--kwargs '{"x": 2}'`)
	}
	return args, kwargs, err
}

func decodeFlag[T any](flag, text, want, example string) (T, error) {
	v, err := serialization.DecodeJSON([]byte(text))
	t, ok := v.(T)
	if err != nil {
		return t, usage("invalid value for "+flag, err.Error(), "write for example "+example)
	}
	if !ok {
		return t, usage("invalid value for "+flag+": it is not "+want, "", "write for example "+example)
	}
	return t, nil
}

func (f *callFlags) options(now time.Time) ([]task.SendOption, error) {
	var options []task.SendOption
	for _, o := range []struct {
		value string
		make  func(string) task.Option
	}{{f.queue, task.Queue}, {f.exchange, task.Exchange}, {f.routingKey, task.RoutingKey}} {
		if o.value != "" {
			options = append(options, o.make(o.value))
		}
	}
	if f.given("priority") {
		options = append(options, task.Priority(f.priority))
	}
	if f.taskID != "" {
		options = append(options, task.ID(f.taskID))
	}
	if f.countdown != 0 && f.eta != "" {
		return nil, usage("--countdown and --eta exclude each other", "", "")
	}
	if f.countdown != 0 {
		options = append(options, task.Countdown(f.countdown.duration()))
	}
	if f.eta != "" {
		t, err := parseMoment(f.eta, now)
		if err != nil {
			return nil, usage("invalid value for --eta: "+err.Error(), "", "")
		}
		options = append(options, task.ETA(t))
	}
	if f.expires != "" {
		t, err := parseExpires(f.expires, now)
		if err != nil {
			return nil, usage("invalid value for --expires: "+err.Error(), "", "")
		}
		options = append(options, task.ExpiresAt(t))
	}
	return options, nil
}

// parseExpires is parseMoment, but a bare number is seconds from now, as in Celery.
func parseExpires(text string, now time.Time) (time.Time, error) {
	if d, err := settings.ParseSeconds(text); err == nil {
		return now.Add(d), nil
	}
	return parseMoment(text, now)
}
