package cli

import (
	"context"

	"github.com/spf13/cobra"
)

func init() { commands = append(commands, statusCommand, inspectCommand, controlCommand) }

func statusCommand(a *app) *cobra.Command {
	f := &remoteFlags{}
	cmd := &cobra.Command{
		Use:     "status",
		GroupID: groupWatch,
		Short:   "Show which workers are there",
		Long: `Show which workers are there

Workers in Python and in Go are asked alike. -o json prints {node: {"ok": "pong"}}, as celery does; -o jsonl
{"node", "reply"} as the replies come.

` + remoteExitCodes,
		Example: `  gelery status
  gelery status --destination celery@web1 --timeout 2
  gelery --broker amqp://localhost// status --output json`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			return a.talk(ctx, f, "ping", nil, remoteViews["status"])
		}),
	}
	f.add(cmd)
	return cmd
}

func inspectCommand(a *app) *cobra.Command {
	f := &remoteFlags{}
	cmd := &cobra.Command{
		Use:     "inspect COMMAND [ARGUMENT...]",
		GroupID: groupWatch,
		Short:   "Ask workers what they do",
		Long: `Ask workers what they do

Workers in Python and in Go are asked alike, by Celery's remote control. -o json prints {node: reply}, as celery does, and
-o jsonl {"node", "reply"} as the replies come. The commands:

` + listRemoteCommands(inspectCommands) + `
` + remoteExitCodes,
		Example: `  gelery inspect active
  gelery inspect stats --destination celery@web1 --output json
  gelery inspect query_task 4f1c9a3e-7f5c-4f5e-9a57-2c1d5a2f9b11
  gelery inspect active_queues --watch=5`,
		Args: atLeastOne("an inspect command"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, words []string) error {
			c, arguments, err := remoteCall("inspect", inspectCommands, words, f.custom)
			if err != nil {
				return err
			}
			return a.talk(ctx, f, c.name, arguments, remoteViews[c.name])
		}),
		ValidArgsFunction: completeRemote(inspectCommands),
	}
	f.add(cmd)
	f.addCustom(cmd)
	return cmd
}

func controlCommand(a *app) *cobra.Command {
	f := &remoteFlags{}
	cmd := &cobra.Command{
		Use:     "control COMMAND [ARGUMENT...]",
		GroupID: groupWatch,
		Short:   "Tell workers what to do",
		Long: `Tell workers what to do

Workers in Python and in Go are told alike, by Celery's remote control; without -d or --pattern all of them. -o json prints
[{node: reply}], as celery does, and -o jsonl {"node", "reply"} as the replies come. The commands:

` + listRemoteCommands(controlCommands) + `
` + remoteExitCodes,
		Example: `  gelery control pool_grow 4 --destination celery@web1
  gelery control rate_limit tasks.add 10/m
  gelery control revoke 4f1c9a3e-7f5c-4f5e-9a57-2c1d5a2f9b11
  gelery control shutdown --pattern 'celery@web*'`,
		Args: atLeastOne("a control command"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, words []string) error {
			c, arguments, err := remoteCall("control", controlCommands, words, f.custom)
			if err != nil {
				return err
			}
			return a.talk(ctx, f, c.name, arguments, remoteView{asList: true, silent: c.silent})
		}),
		ValidArgsFunction: completeRemote(controlCommands),
	}
	f.add(cmd)
	f.addCustom(cmd)
	return cmd
}

// atLeastOne wants something to do.
func atLeastOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(what+" is missing", "", "see "+cmd.CommandPath()+" --help for those there are")
		}
		return nil
	}
}

func completeRemote(all []remoteCommand) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			for _, c := range all {
				names = append(names, c.name+"\t"+c.short)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
