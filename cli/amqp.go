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
	connectionFlags
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
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			hint := "see " + cmd.CommandPath() + " --help"
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean: " + cmd.CommandPath() + " " + near[0]
			}
			return usage("unknown command "+cmd.CommandPath()+" "+args[0], "", hint)
		},
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(exchangeDeclareCommand(a), exchangeDeleteCommand(a), queueDeclareCommand(a), queueBindCommand(a, true),
		queueBindCommand(a, false), queueDeleteCommand(a), queuePurgeCommand(a))
	return cmd
}

// entityCommand is a command on one exchange or queue. Do does it and returns the document and the sentence to print.
func (a *app) entityCommand(f *entityFlags, use, short, long, example string, names []string, optional int,
	do func(ctx context.Context, b broker, args []string) (amqpDocument, string, error)) *cobra.Command {
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    short + "\n\n" + long + "\n\n" + exitCodes,
		Example: example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) <= len(names) && len(args) >= len(names)-optional {
				return nil
			}
			return usage(fmt.Sprintf("%s takes %s, not %s", cmd.CommandPath(), strings.Join(names, " "), plural(int64(len(args)), "argument")), "",
				"see "+cmd.CommandPath()+" --help")
		},
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.administer(ctx, f, args, do)
		}),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SortFlags = false
	f.output.add(cmd, outputPlain, outputJSON)
	f.addBroker(cmd)
	return cmd
}

// administer opens the broker and does one thing there.
func (a *app) administer(ctx context.Context, f *entityFlags, args []string,
	do func(ctx context.Context, b broker, args []string) (amqpDocument, string, error)) error {
	url := a.brokerURL("WRITE")
	config, err := f.config(url, "", quietLogger(a.stderr))
	if err != nil {
		return err
	}
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
	cmd.Flags().StringVar(&f.kind, "type", "direct", usage)
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"direct", "topic", "fanout"}, cobra.ShellCompDirectiveNoFileComp))
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
	cmd := a.entityCommand(f, "exchange.declare EXCHANGE", "Make an exchange exist",
		"-o json prints {\"exchange\"}.",
		`  gelery amqp exchange.declare events --type topic`, []string{"EXCHANGE"}, 0,
		func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			arguments, err := optionMap("arg", f.arguments)
			if err != nil {
				return amqpDocument{}, "", err
			}
			x := transport.Exchange{Name: args[0], Type: f.kind, Transient: f.transient, AutoDelete: f.autoDelete, Arguments: arguments}
			return amqpDocument{Exchange: x.Name}, "Declared exchange " + printable(x.Name) + ".", b.DeclareExchange(ctx, x)
		})
	f.addType(cmd, "`type`: direct, topic, fanout")
	f.addProperties(cmd, "gone with its last binding")
	return cmd
}

func exchangeDeleteCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	cmd := a.entityCommand(f, "exchange.delete EXCHANGE", "Delete an exchange with its bindings",
		"It does not ask, and what does not exist is deleted already. -o json prints {\"exchange\"}.",
		`  gelery amqp exchange.delete events --if-unused`, []string{"EXCHANGE"}, 0,
		func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			return amqpDocument{Exchange: args[0]}, "Deleted exchange " + printable(args[0]) + ".", b.DeleteExchange(ctx, args[0], f.ifUnused)
		})
	cmd.Flags().BoolVar(&f.ifUnused, "if-unused", false, "not while something is bound to it")
	return cmd
}

func queueDeclareCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	cmd := a.entityCommand(f, "queue.declare QUEUE", "Make a queue exist, without an exchange of its own",
		"It is reached by its name, which is how Celery sends to direct queues. -o json prints {\"queue\"}.",
		"  gelery amqp queue.declare mail --arg x-queue-type=quorum\n  gelery amqp queue.declare mail --arg x-max-priority=10",
		[]string{"QUEUE"}, 0,
		func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			arguments, err := optionMap("arg", f.arguments)
			if err != nil {
				return amqpDocument{}, "", err
			}
			q := transport.Queue{Name: args[0], Unbound: true, Transient: f.transient, AutoDelete: f.autoDelete, Arguments: arguments}
			return amqpDocument{Queue: q.Name}, "Declared queue " + printable(q.Name) + ".", b.Declare(ctx, q)
		})
	f.addProperties(cmd, "gone with its last consumer")
	return cmd
}

// queueBindCommand is queue.bind or its reverse.
func queueBindCommand(a *app, bind bool) *cobra.Command {
	f := &entityFlags{}
	name, short, done := "queue.bind", "Let an exchange send what has a routing key to a queue", "Bound"
	if !bind {
		name, short, done = "queue.unbind", "Undo queue.bind", "Unbound"
	}
	cmd := a.entityCommand(f, name+" QUEUE EXCHANGE [ROUTING_KEY]", short,
		"Both must exist, except on Redis. Fanout exchanges need no routing key. -o json prints\n{\"queue\", \"exchange\", \"routing_key\"}.",
		"  gelery amqp "+name+" mail events 'mail.#' --type topic", []string{"QUEUE", "EXCHANGE", "[ROUTING_KEY]"}, 1,
		func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			arguments, err := optionMap("arg", f.arguments)
			if err != nil {
				return amqpDocument{}, "", err
			}
			binding := transport.Binding{Exchange: args[1], ExchangeType: f.kind, Arguments: arguments}
			if len(args) == 3 {
				binding.RoutingKey = args[2]
			}
			act := b.Unbind
			if bind {
				act = b.Bind
			}
			document := amqpDocument{Queue: args[0], Exchange: args[1], RoutingKey: &binding.RoutingKey}
			sentence := fmt.Sprintf("%s queue %s, exchange %s, routing key %q.", done, printable(args[0]), printable(args[1]), binding.RoutingKey)
			return document, sentence, act(ctx, args[0], binding)
		})
	f.addType(cmd, "`type` of the exchange, which Redis does not know: direct, topic, fanout")
	f.addArguments(cmd)
	return cmd
}

func queueDeleteCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	cmd := a.entityCommand(f, "queue.delete QUEUE", "Delete a queue with its messages and bindings",
		"It does not ask, there is no way back, and what does not exist is deleted already. -o json prints {\"queue\", \"deleted\"}.",
		`  gelery amqp queue.delete mail --if-empty`, []string{"QUEUE"}, 0,
		func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			n, err := b.DeleteQueue(ctx, args[0], f.ifUnused, f.ifEmpty)
			return amqpDocument{Queue: args[0], Deleted: &n}, fmt.Sprintf("Deleted queue %s with %s.", printable(args[0]), plural(n, "message")), err
		})
	cmd.Flags().BoolVar(&f.ifUnused, "if-unused", false, "not while somebody consumes from it")
	cmd.Flags().BoolVar(&f.ifEmpty, "if-empty", false, "not while messages wait in it")
	return cmd
}

func queuePurgeCommand(a *app) *cobra.Command {
	f := &entityFlags{}
	return a.entityCommand(f, "queue.purge QUEUE", "Delete all waiting messages of a queue",
		"Unlike the command purge it does not ask. -o json prints {\"queue\", \"purged\"}.",
		`  gelery amqp queue.purge mail`, []string{"QUEUE"}, 0,
		func(ctx context.Context, b broker, args []string) (amqpDocument, string, error) {
			n, err := b.Purge(ctx, args[0])
			return amqpDocument{Queue: args[0], Purged: &n}, fmt.Sprintf("Purged %s from queue %s.", plural(n, "message"), printable(args[0])), err
		})
}
