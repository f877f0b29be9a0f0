package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/transport"
)

func init() { commands = append(commands, listCommand) }

func listCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		GroupID: groupOperate,
		Short:   "List what a broker has",
		Long: `List what a broker has

` + exitCodes,
		Example: `  gelery list bindings`,
		Args:    cobra.ArbitraryArgs, // an unknown command is answered by RunE
		RunE:    noSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(listBindingsCommand(a))
	return cmd
}

func listBindingsCommand(a *app) *cobra.Command {
	var out output
	var every watch
	cmd := &cobra.Command{
		Use:   "bindings",
		Short: "List which queues are bound to which exchanges",
		Long: `List which queues are bound to which exchanges

Those of remote control and of events are shown, too. RabbitMQ tells them only with its management plugin. -o json prints
[{"queue", "exchange", "routing_key"}], -o jsonl one a line.

` + exitCodes,
		Example: `  gelery list bindings
  gelery --broker amqp://localhost// list bindings --output json`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error { return a.listBindings(ctx, out, every) }),
	}
	out.add(cmd, outputTable, outputPlain, outputJSON, outputJSONL, outputYAML)
	every.add(cmd)
	addBrokerFlags(cmd)
	return cmd
}

func (a *app) listBindings(ctx context.Context, o output, every watch) error {
	broker := a.brokerURL("READ")
	client, closeClient, err := connectBriefly(ctx, a.config(broker, "", quietLogger(a.stderr)))
	if err != nil {
		return err
	}
	defer closeClient()
	lister, can := client.Transport().(transport.BindingLister)
	if !can {
		return usage("the broker "+brokerurl.Redact(broker)+" cannot list bindings", "its driver does not offer it", "")
	}
	return a.watched(ctx, every, func() error {
		ctx, cancel := context.WithTimeout(ctx, operateTimeout)
		defer cancel()
		all, err := lister.Bindings(ctx)
		if err != nil {
			return &unanswered{lostBroker(broker, err)}
		}
		return a.showBindings(all, o, every)
	})
}

func (a *app) showBindings(all []transport.BoundQueue, o output, every watch) error {
	if done, err := list(a.stdout, o, every, all); done {
		return err
	}
	rows := make([][]string, len(all))
	for i, b := range all {
		rows[i] = []string{printable(b.Queue), printable(b.Exchange), printable(b.RoutingKey)}
	}
	return o.table(a.stdout, []string{"QUEUE", "EXCHANGE", "ROUTING KEY"}, rows)
}
