package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/transport"
)

// quarantineDocument is one element of what `queues --quarantine -o json` prints. The message stands in Text if it is
// printable, else in Base64.
type quarantineDocument struct {
	Time   string `json:"time"` // RFC 3339, UTC; empty if unknown
	Queue  string `json:"queue"`
	Reason string `json:"reason"`
	Text   string `json:"text,omitempty"`
	Base64 string `json:"base64,omitempty"`
	// Properties are on RabbitMQ the message's AMQP properties, with "headers"; on Redis all is in the message.
	Properties json.RawMessage `json:"properties,omitempty"`
}

type queuesFlags struct {
	queues          []string
	quarantine      string
	limit           int
	purgeQuarantine string
	output          output
	watch           watch
}

func queuesCommand(a *app) *cobra.Command {
	f := &queuesFlags{}
	cmd := &cobra.Command{
		Use:     "queues",
		GroupID: groupOperate,
		Short:   "Show what waits in the queues, and what is in quarantine",
		Long: `Show what waits in the queues, and what is in quarantine

Unacked are messages some worker holds, delayed those that a worker has left with the broker until their eta (Redis; on
RabbitMQ they wait in queues of their own for all others). In quarantine is what no worker could handle. What the broker cannot tell is
"-", in JSON -1; an error says why where something is wrong, and the other queues are shown nevertheless. RabbitMQ tells
all queues, unacked and priorities only with its management plugin, and these numbers are some seconds old. -o json
prints [{"queue", "messages", "by_priority", "unacked", "delayed", "quarantined", "error" if any}], with --quarantine
[{"time", "queue", "reason", "text" or "base64", "properties" on RabbitMQ}], with --purge-quarantine
[{"queue", "purged"}]; -o jsonl one of these a line.

` + exitCodes,
		Example: `  gelery queues
  gelery queues --queues celery,mail --output json
  gelery queues --watch=5
  gelery queues --quarantine celery --limit 5
  gelery queues --purge-quarantine celery`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if f.limit < 1 {
				return usage(fmt.Sprintf("--limit %d is not at least 1", f.limit), "", "")
			}
			inspector, closeClient, err := a.inspect(ctx)
			if err != nil {
				return err
			}
			defer closeClient()
			return a.watched(ctx, f.watch, func() error {
				err := lostBroker(a.brokerURL("READ"), a.operate(ctx, inspector, f))
				if err != nil {
					err = &unanswered{err} // it may be other the next time
				}
				return err
			})
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVarP(&f.queues, "queues", "Q", nil, "`names`, separated by commas (default all the broker knows)")
	flags.StringVar(&f.quarantine, "quarantine", "", "show the quarantined messages of this `queue`, newest first")
	flags.IntVar(&f.limit, "limit", 20, "at most so many of them")
	flags.StringVar(&f.purgeQuarantine, "purge-quarantine", "", "delete the quarantined messages of this `queue`")
	cmd.MarkFlagsMutuallyExclusive("queues", "quarantine", "purge-quarantine")
	f.output.add(cmd, outputTable, outputPlain, outputJSON, outputJSONL, outputYAML)
	f.watch.add(cmd)
	cmd.MarkFlagsMutuallyExclusive("watch", "purge-quarantine")
	addBrokerFlags(cmd)
	return cmd
}

// operate does once what the options say.
func (a *app) operate(ctx context.Context, inspector transport.Inspector, f *queuesFlags) error {
	ctx, cancel := context.WithTimeout(ctx, operateTimeout)
	defer cancel()
	switch {
	case f.purgeQuarantine != "":
		return a.purgeQuarantine(ctx, inspector, f)
	case f.quarantine != "":
		return a.showQuarantine(ctx, inspector, f)
	}
	return a.showDepths(ctx, inspector, f)
}

// operateTimeout bounds what an operator asks of a broker.
const operateTimeout = 30 * time.Second

// inspect opens the broker for an operator's questions.
func (a *app) inspect(ctx context.Context) (transport.Inspector, func(), error) {
	broker := a.brokerURL("READ")
	config := a.config(broker, "", quietLogger(a.stderr))
	client, closeClient, err := connectBriefly(ctx, config)
	if err != nil {
		return nil, nil, err
	}
	inspector, ok := client.Transport().(transport.Inspector)
	if !ok {
		closeClient()
		return nil, nil, usage("the broker "+brokerurl.Redact(broker)+" cannot be inspected", "its driver does not offer it", "")
	}
	return inspector, closeClient, nil
}

func (a *app) showDepths(ctx context.Context, in transport.Inspector, f *queuesFlags) error {
	names := f.queues
	if len(names) == 0 {
		var err error
		if names, err = in.Queues(ctx); err != nil {
			if _, lost := errors.AsType[*failure](lostBroker(a.brokerURL("READ"), err)); lost {
				return err
			}
			return &failure{code: exitFailed, what: "cannot list the queues", why: err.Error(), todo: "name them with -Q"}
		}
	}
	depths, err := in.Depths(ctx, names)
	if err != nil {
		return err
	}
	done, err := list(a.stdout, f.output, f.watch, depths)
	if !done {
		err = f.output.table(a.stdout, []string{"QUEUE", "MESSAGES", "UNACKED", "DELAYED", "QUARANTINED", "BY PRIORITY"}, depthRows(depths))
	}
	if err != nil {
		return err
	}
	return a.depthFailures(depths)
}

func depthRows(depths []transport.Depth) [][]string {
	number := func(n int64) string {
		if n < 0 {
			return "-"
		}
		return strconv.FormatInt(n, 10)
	}
	rows := make([][]string, len(depths))
	for i, d := range depths {
		steps := make([]string, 0, len(d.ByPriority))
		for _, p := range slices.Sorted(maps.Keys(d.ByPriority)) {
			steps = append(steps, fmt.Sprintf("%d:%d", p, d.ByPriority[p]))
		}
		rows[i] = []string{printable(d.Queue), number(d.Messages), number(d.Unacked), number(d.Delayed), number(d.Quarantined), strings.Join(steps, " ")}
	}
	return rows
}

// depthFailures says what is wrong with queues, once for all that have the same trouble.
func (a *app) depthFailures(depths []transport.Depth) error {
	var troubles []string
	queues := map[string][]string{}
	for _, d := range depths {
		if d.Error != "" {
			if queues[d.Error] == nil {
				troubles = append(troubles, d.Error)
			}
			queues[d.Error] = append(queues[d.Error], printable(d.Queue))
		}
	}
	for _, why := range troubles {
		f := &failure{code: exitFailed, what: "cannot read all of queue " + strings.Join(queues[why], ", "), why: why, todo: moveWrongKey(why)}
		f.print(a.stderr, a.name)
	}
	if len(troubles) > 0 {
		return silent(exitFailed)
	}
	return nil
}

func (a *app) showQuarantine(ctx context.Context, in transport.Inspector, f *queuesFlags) error {
	messages, err := in.Quarantined(ctx, f.quarantine, f.limit)
	if err != nil {
		return err
	}
	documents := make([]quarantineDocument, len(messages))
	rows := make([][]string, len(messages))
	for i, m := range messages {
		d := quarantineDocument{Queue: m.Queue, Reason: m.Reason, Properties: m.Properties}
		if !m.Time.IsZero() {
			d.Time = m.Time.UTC().Format(time.RFC3339)
		}
		if isPrintable(m.Raw) {
			d.Text = string(m.Raw)
		} else {
			d.Base64 = base64.StdEncoding.EncodeToString(m.Raw)
		}
		message := d.Text
		if d.Base64 != "" {
			message = "base64:" + d.Base64
		}
		if m.Properties != nil {
			message = printable(string(m.Properties)) + " " + message
		}
		documents[i], rows[i] = d, []string{d.Time, printable(m.Queue), printable(m.Reason), message}
	}
	if done, err := list(a.stdout, f.output, f.watch, documents); done {
		return err
	}
	return f.output.table(a.stdout, []string{"TIME", "QUEUE", "REASON", "MESSAGE"}, rows)
}

func (a *app) purgeQuarantine(ctx context.Context, in transport.Inspector, f *queuesFlags) error {
	n, err := in.PurgeQuarantine(ctx, f.purgeQuarantine)
	if err != nil {
		return err
	}
	if done, err := list(a.stdout, f.output, f.watch, []purgeDocument{{f.purgeQuarantine, n}}); done {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Purged %s from the quarantine of %s.\n", plural(n, "message"), printable(f.purgeQuarantine))
	return err
}

// isPrintable tells bytes a terminal may be shown: what a stranger put into a queue must not move its cursor.
func isPrintable(b []byte) bool {
	return utf8.Valid(b) && strings.IndexFunc(string(b), func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func printable(s string) string {
	if isPrintable([]byte(s)) {
		return s
	}
	return strconv.Quote(s)
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}
