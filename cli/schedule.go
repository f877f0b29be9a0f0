package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/gelery/gelery/scheduler"
)

func init() { commands = append(commands, scheduleCommand) }

func scheduleCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "schedule",
		GroupID: groupOperate,
		Short:   "Show and change the periodic tasks of a beat",
		Long: `Show and change the periodic tasks of a beat

They are those of the store that the setting beat_scheduler names, or the option --scheduler: the settings and files of a beat on this
machine (local), a Redis as RedBeat has it, or the database of django-celery-beat. A beat that runs heeds changes within a second or two.

` + exitCodes,
		Example: `  gelery --config gelery.yaml schedule list
  gelery schedule next --count 5 --scheduler redbeat`,
		Args: cobra.ArbitraryArgs, // an unknown command is answered by RunE
		RunE: noSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(scheduleListCommand(a), scheduleNextCommand(a), scheduleShowCommand(a), scheduleAddCommand(a),
		schedulePauseCommand(a, "pause", "Keep an entry from being sent", true),
		schedulePauseCommand(a, "resume", "Let an entry be sent again, from its next moment on", false),
		scheduleRunCommand(a), scheduleRemoveCommand(a))
	return cmd
}

// addScheduleFlags adds what tells which schedule it is about.
func addScheduleFlags(cmd *cobra.Command) {
	addBeatFlags(cmd, "S")
	addBrokerFlags(cmd)
}

// withStore opens the store for a command that a person waits for.
func (a *app) withStore(ctx context.Context, do func(ctx context.Context, s *beatStore) error) error {
	opening, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	s, err := a.openBeatStore(opening, a.brokerURL("WRITE"), false, quietLogger(a.stderr))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ctx, cancel = context.WithTimeout(ctx, operateTimeout)
	defer cancel()
	return do(ctx, s)
}

// source is where an entry is defined, for people.
func (a *app) source(r scheduler.Record) string {
	if v, ok := a.settings.Get("beat_schedule"); ok && r.Fixed {
		if all, ok := v.Value.(map[string]any); ok && all[r.Entry.Name] != nil {
			return "beat_schedule (" + v.Origin + ")"
		}
	}
	return firstOf(r.Source, "-")
}

// entryFailure tells why nothing could be done with an entry.
func (a *app) entryFailure(ctx context.Context, s *beatStore, name string, err error) error {
	var wrong *scheduler.EntryError
	switch {
	case errors.Is(err, scheduler.ErrNoEntry):
		return &failure{exitFailed, "there is no entry " + printable(name), "the schedule is " + s.config.Scheduler + " at " + s.at,
			"see " + a.name + " schedule list"}
	case errors.Is(err, scheduler.ErrFixed):
		f := &failure{exitFailed, "the entry " + printable(name) + " cannot be changed here", err.Error(),
			"name a file of entries in the setting beat_files, or take the scheduler redbeat or django"}
		if r, err := s.Entry(ctx, name); err == nil && r.Fixed {
			f.why = "it is defined elsewhere"
			f.todo = "change it where it is defined: " + a.source(r)
		}
		return f
	case errors.As(err, &wrong):
		return usage(err.Error(), "", "see "+a.name+" schedule add --help")
	}
	return err
}

// records are all entries by name. What cannot be read of one, or of a file of them, is in errs.
func (s *beatStore) records(ctx context.Context) (all []scheduler.Record, errs []error, err error) {
	for r, err := range s.Entries(ctx) {
		var wrong *scheduler.EntryError
		switch {
		case errors.As(err, &wrong), errors.Is(err, scheduler.ErrFile):
			errs = append(errs, err)
		case err != nil:
			return nil, nil, err
		default:
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b scheduler.Record) int { return strings.Compare(a.Entry.Name, b.Entry.Name) })
	return all, errs, nil
}

func scheduleListCommand(a *app) *cobra.Command {
	var out output
	var every watch
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the periodic tasks, and when each runs next",
		Long: `List the periodic tasks, and when each runs next

What cannot be read of an entry is a line on standard error, and exit code 1; the others are listed nevertheless. -o json prints
[{"name", "task", "schedule", "timezone" if any, "enabled", "last_run_at" if any, "total_run_count", "next" if any, "source", "fixed"}],
-o jsonl one a line; fixed are those that can be changed where they are defined only. -o name prints the names.

` + exitCodes,
		Example: `  gelery --config gelery.yaml schedule list
  gelery schedule list --scheduler redbeat --output json
  gelery schedule list --watch`,
		Args: cobra.NoArgs,
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, _ []string) error {
			if err := every.check(); err != nil {
				return err
			}
			if every == 0 {
				return a.listSchedule(ctx, out)
			}
			return a.repeat(ctx, every, func() error {
				err := a.listSchedule(ctx, out)
				if f, ok := errors.AsType[*failure](err); ok && f.what == "" {
					return nil // what is wrong was said, and may be mended
				}
				return err
			})
		}),
	}
	out.add(cmd, outputTable, outputPlain, outputJSON, outputJSONL, outputYAML, outputName)
	every.add(cmd)
	addScheduleFlags(cmd)
	return cmd
}

func (a *app) listSchedule(ctx context.Context, o output) error {
	return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
		all, wrong, err := s.records(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		documents := make([]entryDocument, len(all))
		for i, r := range all {
			documents[i] = a.entryDocument(r, now)
		}
		if err := printEntries(a.stdout, o, documents, now); err != nil {
			return err
		}
		return a.tellWrong(wrong)
	})
}

// tellWrong writes what is wrong with entries of a store and of the settings, a line each.
func (a *app) tellWrong(wrong []error) error {
	_, mistakes := a.settings.Beat()
	err := errors.Join(append(wrong, mistakes)...)
	if err == nil {
		return nil
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(a.stderr, "%s: %s\n", a.name, oneLine(line))
	}
	return silent(exitFailed)
}

func scheduleNextCommand(a *app) *cobra.Command {
	var out output
	var count int
	cmd := &cobra.Command{
		Use:   "next [NAME]",
		Short: "Tell the next runs, of one entry or of all",
		Long: `Tell the next runs, of one entry or of all

Each is told in words and as a time in the entry's zone. What is overdue runs now, if a beat runs. Entries that are paused have none.
Without NAME, what cannot be read of an entry is a line on standard error, and exit code 1, as with list.
-o json prints [{"name", "at"}], -o jsonl one a line.

` + exitCodes,
		Example: `  gelery --config gelery.yaml schedule next
  gelery schedule next nightly --count 10`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if count < 1 || count > 1000 {
				return usage("--count is 1 to 1000", "", "")
			}
			return a.nextRuns(ctx, args, count, out)
		}),
	}
	cmd.Flags().IntVarP(&count, "count", "n", 5, "how many `runs`")
	out.add(cmd, outputTable, outputPlain, outputJSON, outputJSONL, outputYAML)
	addScheduleFlags(cmd)
	return cmd
}

func (a *app) nextRuns(ctx context.Context, args []string, count int, o output) error {
	return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
		var all []scheduler.Record
		var wrong []error
		if len(args) == 1 {
			r, err := s.Entry(ctx, args[0])
			if err != nil {
				return a.entryFailure(ctx, s, args[0], err)
			}
			all = []scheduler.Record{r}
		} else {
			var err error
			if all, wrong, err = s.records(ctx); err != nil {
				return err
			}
		}
		now := time.Now()
		runs := []runDocument{}
		for _, r := range all {
			if r.Entry.Paused {
				continue
			}
			for _, at := range r.Entry.Upcoming(r.State, now, count) {
				runs = append(runs, runDocument{r.Entry.Name, at.In(zoneOf(r.Entry, s.config.Zone))})
			}
		}
		slices.SortStableFunc(runs, func(a, b runDocument) int { return a.At.Compare(b.At) })
		if err := printRuns(a.stdout, o, runs[:min(count, len(runs))], now); err != nil || len(args) == 1 {
			return err
		}
		return a.tellWrong(wrong)
	})
}

func scheduleShowCommand(a *app) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show an entry's definition, as schedule add reads it",
		Long: `Show an entry's definition, as schedule add reads it

-o json prints {name: definition}. What became of the entry, list tells.

` + exitCodes,
		Example: `  gelery schedule show nightly
  gelery schedule show nightly | sed 's/every: 60/every: 30/' | gelery schedule add --file -`,
		Args: exactlyOne("the name of an entry"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := out.only(outputJSON, outputYAML); err != nil {
				return err
			}
			return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
				r, err := s.Entry(ctx, args[0])
				if err != nil {
					return a.entryFailure(ctx, s, args[0], err)
				}
				definition, err := r.Entry.Definition()
				if err != nil {
					return &failure{exitFailed, err.Error(), "it is defined in the program", ""}
				}
				text, err := wireJSON(map[string]any{r.Entry.Name: definition})
				if err != nil {
					return err
				}
				if out == "" {
					out = outputYAML
				}
				return out.document(a.stdout, text)
			})
		}),
	}
	out.add(cmd, outputJSON, outputYAML)
	addScheduleFlags(cmd)
	return cmd
}
