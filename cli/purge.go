package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/internal/brokerurl"
)

// purgeDocument is one element of what `purge -o json` prints.
type purgeDocument struct {
	Queue  string `json:"queue"`
	Purged int64  `json:"purged"`
}

func purgeCommand(a *app) *cobra.Command {
	var (
		queues      []string
		exclude     []string
		force, sure bool
		out         output
	)
	cmd := &cobra.Command{
		Use:     "purge",
		GroupID: groupOperate,
		Short:   "Delete all waiting messages of queues",
		Long: `Delete all waiting messages of queues

On Redis also those that workers have left with the broker until their eta. What workers hold stays with them. There is
no way back, so it asks first; where nobody can be asked, --force is needed.
-o json prints [{"queue", "purged"}], -o jsonl one a line.

` + exitCodes,
		Example: `  gelery purge
  gelery --broker redis://localhost:6379/0 purge --queues celery,mail --force`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if len(queues) == 0 {
				queues = a.servedQueues()
			}
			queues = slices.DeleteFunc(queues, func(q string) bool { return slices.Contains(exclude, q) })
			if !force && !sure {
				if err := a.confirmPurge(ctx, queues); err != nil {
					return err
				}
			}
			return a.purge(ctx, queues, out)
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringSliceVarP(&queues, "queues", "Q", nil, "`names`, separated by commas (default celery)")
	flags.StringSliceVarP(&exclude, "exclude-queues", "X", nil, "`names` of queues to leave alone")
	flags.BoolVarP(&force, "force", "f", false, "do not ask")
	flags.BoolVar(&sure, "yes", false, "the same as --force")
	out.add(cmd, outputPlain, outputJSON, outputJSONL, outputYAML)
	addBrokerFlags(cmd)
	return cmd
}

// confirmPurge asks as celery does. Nobody at the other end is a mistake in the command, not a no.
func (a *app) confirmPurge(ctx context.Context, queues []string) error {
	needForce := usage("purge was not confirmed", "there is no terminal to ask at", "give --force")
	if _, isFile := a.stdin.(*os.File); isFile && !isTerminal(a.stdin) {
		return needForce
	}
	noun := "queue"
	if len(queues) != 1 {
		noun = "queues"
	}
	fmt.Fprintf(a.stderr, "WARNING: this removes all tasks from %s %s at %s.\n         There is no undo.\n\n"+
		"Are you sure you want to delete them? [y/N]: ", noun, strings.Join(queues, ", "), brokerurl.Redact(a.brokerURL("READ")))
	text, err := a.answer(ctx)
	switch {
	case errors.Is(err, io.EOF):
		fmt.Fprintln(a.stderr)
		return needForce
	case err != nil:
		return err
	}
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "y", "yes":
		return nil
	}
	return &failure{code: exitFailed, what: "nothing was purged"}
}

func (a *app) purge(ctx context.Context, queues []string, o output) error {
	inspector, closeClient, err := a.inspect(ctx)
	if err != nil {
		return err
	}
	defer closeClient()
	ctx, cancel := context.WithTimeout(ctx, operateTimeout)
	defer cancel()
	documents := make([]purgeDocument, len(queues))
	var total int64
	for i, q := range queues {
		n, err := inspector.Purge(ctx, q)
		if err != nil {
			return fmt.Errorf("purge queue %s: %w", q, err)
		}
		documents[i] = purgeDocument{q, n}
		total += n
	}
	if done, err := list(a.stdout, o, 0, documents); done {
		return err
	}
	if total == 0 {
		_, err = fmt.Fprintf(a.stdout, "No messages purged from %s.\n", plural(int64(len(queues)), "queue"))
	} else {
		_, err = fmt.Fprintf(a.stdout, "Purged %s from %s.\n", plural(total, "message"), plural(int64(len(queues)), "known task queue"))
	}
	return err
}
