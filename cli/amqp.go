package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/transport"
)

// amqpDocument is what the commands of `amqp` print with -o json: what they were about, and how many messages went with
// it.
type amqpDocument struct {
	Exchange   string  `json:"exchange,omitempty"`
	Queue      string  `json:"queue,omitempty"`
	RoutingKey *string `json:"routing_key,omitempty"` // of a binding
	Deleted    *int64  `json:"deleted,omitempty"`     // messages, by queue.delete
	Purged     *int64  `json:"purged,omitempty"`      // messages, by queue.purge
}

// entityFlags say what an exchange, queue or binding is like.
type entityFlags struct {
	kind                  string
	transient, autoDelete bool
	arguments             []string
	ifUnused, ifEmpty     bool
	output                output
}

// broker is what the commands of `amqp` need of a driver.
type broker interface {
	transport.Transport
	transport.Inspector
	transport.Administrator
}

func amqpCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "amqp",
		GroupID: groupOperate,
		Short:   "Declare, bind, empty and delete queues and exchanges",
		Long: `Declare, bind, empty and delete queues and exchanges

The commands and the order of their arguments are those of celery amqp; what celery takes as true or false after them
are options here. Queues and exchanges are durable unless --transient is given. On Redis an exchange is nothing but its
bindings.

` + exitCodes,
		Example: `  gelery amqp queue.declare mail --arg x-max-priority=10
  gelery amqp queue.bind mail events 'mail.#' --type topic`,
		Args: cobra.ArbitraryArgs, // an unknown command is answered by RunE
		RunE: noSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(exchangeDeclareCommand(a), exchangeDeleteCommand(a), queueDeclareCommand(a), queueBindCommand(a),
		queueUnbindCommand(a), queueDeleteCommand(a), queuePurgeCommand(a))
	return cmd
}

// entityCommand is a command on one exchange or queue.
type entityCommand struct {
	use                  string // its name and arguments; those in brackets may be left out
	short, long, example string
	flags                func(cmd *cobra.Command) // adds its own
	// do does it and returns the document and the sentence to print.
	do func(ctx context.Context, b broker, args []string) (amqpDocument, string, error)
}

func (c *entityCommand) cobra(a *app, f *entityFlags) *cobra.Command {
	most := strings.Fields(c.use)[1:]
	least := len(most) - strings.Count(c.use, "[")
	cmd := &cobra.Command{
		Use:     c.use,
		Short:   c.short,
		Long:    c.short + "\n\n" + c.long + "\n\n" + exitCodes,
		Example: c.example,
		Args: func(cmd *cobra.Command, args []string) error {
			if least <= len(args) && len(args) <= len(most) {
				return nil
			}
			return usage(fmt.Sprintf("%s takes %s, not %s", cmd.CommandPath(), strings.Join(most, " "), plural(int64(len(args)), "argument")),
				"", "see "+cmd.CommandPath()+" --help")
		},
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.administer(ctx, f, args, c.do)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	if c.flags != nil {
		c.flags(cmd)
	}
	f.output.add(cmd, outputPlain, outputJSON)
	addBrokerFlags(cmd)
	return cmd
}

// administer opens the broker and does one thing there.
func (a *app) administer(ctx context.Context, f *entityFlags, args []string,
	do func(ctx context.Context, b broker, args []string) (amqpDocument, string, error)) error {
	url := a.brokerURL("WRITE")
	config := a.config(url, "", quietLogger(a.stderr))
	client, closeClient, err := connectBriefly(ctx, config)
	if err != nil {
		return err
	}
	defer closeClient()
	b, ok := client.Transport().(broker)
	if !ok {
		return usage("the broker "+brokerurl.Redact(url)+" cannot be administered", "its driver does not offer it", "")
	}
	ctx, cancel := context.WithTimeout(ctx, operateTimeout)
	defer cancel()
	document, sentence, err := do(ctx, b, args)
	if err != nil {
		return err
	}
	if f.output == outputJSON {
		return writeJSON(a.stdout, document)
	}
	_, err = fmt.Fprintln(a.stdout, sentence)
	return err
}

func (f *entityFlags) addType(cmd *cobra.Command, usage string) {
	types := []string{"direct", "topic", "fanout"}
	cmd.Flags().StringVar(&f.kind, "type", types[0], usage)
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(types, cobra.ShellCompDirectiveNoFileComp))
}

func (f *entityFlags) addProperties(cmd *cobra.Command, autoDelete string) {
	cmd.Flags().BoolVar(&f.transient, "transient", false, "gone when the broker restarts (default durable)")
	cmd.Flags().BoolVar(&f.autoDelete, "auto-delete", false, autoDelete)
	f.addArguments(cmd)
}

func (f *entityFlags) addArguments(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.arguments, "arg", nil, "argument `key=value`, the value as JSON; repeatable")
}

func exchangeDeclareCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	c := entityCommand{
		use:     "exchange.declare EXCHANGE",
		short:   "Make an exchange exist",
		long:    `-o json prints {"exchange"}.`,
		example: "  gelery amqp exchange.declare events --type topic",
		flags: func(cmd *cobra.Command) {
			f.addType(cmd, "`type`: direct, topic, fanout")
			f.addProperties(cmd, "gone with its last binding")
		},
		do: func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			arguments, err := optionMap("arg", f.arguments)
			if err != nil {
				return amqpDocument{}, "", err
			}
			x := transport.Exchange{Name: args[0], Type: f.kind, Transient: f.transient, AutoDelete: f.autoDelete, Arguments: arguments}
			return amqpDocument{Exchange: x.Name}, "Declared exchange " + printable(x.Name) + ".", b.DeclareExchange(ctx, x)
		},
	}
	return c.cobra(a, f)
}

func exchangeDeleteCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	c := entityCommand{
		use:     "exchange.delete EXCHANGE",
		short:   "Delete an exchange with its bindings",
		long:    `It does not ask, and what does not exist is deleted already. -o json prints {"exchange"}.`,
		example: "  gelery amqp exchange.delete events --if-unused",
		flags: func(cmd *cobra.Command) {
			cmd.Flags().BoolVar(&f.ifUnused, "if-unused", false, "not while something is bound to it")
		},
		do: func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			err := b.DeleteExchange(ctx, args[0], f.ifUnused)
			return amqpDocument{Exchange: args[0]}, "Deleted exchange " + printable(args[0]) + ".", err
		},
	}
	return c.cobra(a, f)
}

func queueDeclareCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	c := entityCommand{
		use:   "queue.declare QUEUE",
		short: "Make a queue exist, without an exchange of its own",
		long:  `It is reached by its name, which is how Celery sends to direct queues. -o json prints {"queue"}.`,
		example: "  gelery amqp queue.declare mail --arg x-queue-type=quorum\n" +
			"  gelery amqp queue.declare mail --arg x-max-priority=10",
		flags: func(cmd *cobra.Command) { f.addProperties(cmd, "gone with its last consumer") },
		do: func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			arguments, err := optionMap("arg", f.arguments)
			if err != nil {
				return amqpDocument{}, "", err
			}
			q := transport.Queue{Name: args[0], Unbound: true, Transient: f.transient, AutoDelete: f.autoDelete, Arguments: arguments}
			return amqpDocument{Queue: q.Name}, "Declared queue " + printable(q.Name) + ".", b.Declare(ctx, q)
		},
	}
	return c.cobra(a, f)
}

func queueBindCommand(a *app) *cobra.Command {
	return bindingCommand(a, "queue.bind", "Let an exchange send what has a routing key to a queue", "Bound", broker.Bind)
}

func queueUnbindCommand(a *app) *cobra.Command {
	return bindingCommand(a, "queue.unbind", "Undo queue.bind", "Unbound", broker.Unbind)
}

func bindingCommand(a *app, name, short, done string, act func(broker, context.Context, string, transport.Binding) error) *cobra.Command {
	f := &entityFlags{}
	c := entityCommand{
		use:   name + " QUEUE EXCHANGE [ROUTING_KEY]",
		short: short,
		long: `Both must exist, except on Redis. Fanout exchanges need no routing key. -o json prints
{"queue", "exchange", "routing_key"}.`,
		example: "  gelery amqp " + name + " mail events 'mail.#' --type topic",
		flags: func(cmd *cobra.Command) {
			f.addType(cmd, "`type` of the exchange, which Redis does not know: direct, topic, fanout")
			f.addArguments(cmd)
		},
		do: func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			arguments, err := optionMap("arg", f.arguments)
			if err != nil {
				return amqpDocument{}, "", err
			}
			binding := transport.Binding{Exchange: args[1], ExchangeType: f.kind, Arguments: arguments}
			if len(args) == 3 {
				binding.RoutingKey = args[2]
			}
			sentence := fmt.Sprintf("%s queue %s, exchange %s, routing key %q.", done, printable(args[0]), printable(args[1]), binding.RoutingKey)
			return amqpDocument{Queue: args[0], Exchange: args[1], RoutingKey: &binding.RoutingKey}, sentence, act(b, ctx, args[0], binding)
		},
	}
	return c.cobra(a, f)
}

func queueDeleteCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	c := entityCommand{
		use:   "queue.delete QUEUE",
		short: "Delete a queue with its messages and bindings",
		long: `It does not ask, there is no way back, and what does not exist is deleted already. -o json prints
{"queue", "deleted"}.`,
		example: "  gelery amqp queue.delete mail --if-empty",
		flags: func(cmd *cobra.Command) {
			cmd.Flags().BoolVar(&f.ifUnused, "if-unused", false, "not while somebody consumes from it")
			cmd.Flags().BoolVar(&f.ifEmpty, "if-empty", false, "not while messages wait in it")
		},
		do: func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			n, err := b.DeleteQueue(ctx, args[0], f.ifUnused, f.ifEmpty)
			sentence := fmt.Sprintf("Deleted queue %s with %s.", printable(args[0]), plural(n, "message"))
			return amqpDocument{Queue: args[0], Deleted: &n}, sentence, err
		},
	}
	return c.cobra(a, f)
}

func queuePurgeCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	c := entityCommand{
		use:     "queue.purge QUEUE",
		short:   "Delete all waiting messages of a queue",
		long:    `Unlike the command purge it does not ask. -o json prints {"queue", "purged"}.`,
		example: "  gelery amqp queue.purge mail",
		do: func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			n, err := b.Purge(ctx, args[0])
			sentence := fmt.Sprintf("Purged %s from queue %s.", plural(n, "message"), printable(args[0]))
			return amqpDocument{Queue: args[0], Purged: &n}, sentence, err
		},
	}
	return c.cobra(a, f)
}
