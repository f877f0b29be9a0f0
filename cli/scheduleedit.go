package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/scheduler"
)

// entryFlags are the flags of schedule add: what an entry is.
type entryFlags struct {
	file string
	task string

	every, crontab, cron, solar, at string
	relative                        bool
	timezone                        string

	args, kwargs                        string
	queue, exchange, routingKey         string
	priority                            int
	expires                             seconds
	options                             []string
	missed, deadline, jitter            string
	start, end                          string
	oneOff, paused, keepExpired, anyway bool

	given    func(flag string) bool
	defining []string // the flags that say what an entry is
}

func scheduleAddCommand(a *app) *cobra.Command {
	f := &entryFlags{}
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a periodic task",
		Long: `Add a periodic task

What it sends is --task with its options; when, is one of --every, --crontab (five fields with Celery's meaning), --cron (with cron's),
--solar and --at. With --file the definitions are those of a file, YAML or JSON, or of the standard input (-), as "schedule show" prints
them and beat_schedule has them; then there is no NAME, and no other option. All of them are added or none, unless they are in several of
the files of beat_files, which are written one after the other. An entry that is there already is changed only with --replace; it keeps what
became of it.

` + exitCodes,
		Example: `  gelery schedule add nightly --task tasks.report --crontab '0 3 * * *' --timezone Europe/Berlin
  gelery schedule add poll --task tasks.poll --every 30s --args '["a"]' --queue fast --scheduler redbeat
  gelery schedule add --file entries.yaml --replace`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.command(func(ctx context.Context, cmd *cobra.Command, args []string) error {
			f.given = cmd.Flags().Changed
			return a.addEntries(ctx, f, args)
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVarP(&f.file, "file", "f", "", "`path` of a file of definitions; - for the standard input")
	flags.StringVarP(&f.task, "task", "t", "", "`name` of the task")
	flags.StringVar(&f.every, "every", "", "send it every so often: `seconds`, or 1m30s")
	flags.BoolVar(&f.relative, "relative", false, "with --every: on whole minutes, hours or days")
	flags.StringVar(&f.crontab, "crontab", "", "send it by a crontab of five `fields`, with Celery's meaning")
	flags.StringVar(&f.cron, "cron", "", "send it by a `line` of cron, with cron's meaning")
	flags.StringVar(&f.solar, "solar", "", "send it at an `EVENT,LATITUDE,LONGITUDE` of the sun")
	flags.StringVar(&f.at, "at", "", "send it once, at this `time`: ISO 8601, Unix seconds or +10m")
	flags.StringVar(&f.timezone, "timezone", "", "`name` of the zone of the schedule's clock (default the setting timezone)")
	flags.StringVarP(&f.args, "args", "a", "", "positional arguments as a JSON `list`")
	flags.StringVarP(&f.kwargs, "kwargs", "k", "", "keyword arguments as a JSON `object`")
	flags.StringVarP(&f.queue, "queue", "q", "", "`name` of the queue")
	flags.StringVar(&f.exchange, "exchange", "", "`name` of the exchange; needs --routing-key")
	flags.StringVar(&f.routingKey, "routing-key", "", "routing `key`")
	flags.IntVar(&f.priority, "priority", 0, "0 to 255; on Redis 0 to 9, the lowest first")
	flags.Var(&f.expires, "expires", "drop a run that has not begun by then, after it was sent")
	flags.StringArrayVar(&f.options, "option", nil, "another option of apply_async, `key=value`, the value as JSON; repeatable")
	flags.StringVar(&f.missed, "missed", "", "`which` moments are made up for that no beat sent: last, none, all, or how many (default last)")
	flags.StringVar(&f.deadline, "deadline", "", "how late a moment is still sent: `seconds`, or 5m")
	flags.StringVar(&f.jitter, "jitter", "", "send it up to so much later: `seconds`, or 10s")
	flags.StringVar(&f.start, "start", "", "not before this `time`: ISO 8601")
	flags.StringVar(&f.end, "end", "", "not after this `time`: ISO 8601")
	flags.BoolVar(&f.oneOff, "one-off", false, "pause it after its first run")
	flags.BoolVar(&f.keepExpired, "keep-expired", false, "runs without --expires do not expire when the next one is due")
	flags.BoolVar(&f.paused, "paused", false, "add it paused")
	flags.BoolVar(&f.anyway, "replace", false, "change the entry of this name if there is one")
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "file" && flag.Name != "replace" {
			f.defining = append(f.defining, flag.Name)
		}
	})
	addScheduleFlags(cmd)
	return cmd
}

func (a *app) addEntries(ctx context.Context, f *entryFlags, args []string) error {
	definitions := map[string]any{}
	others := slices.DeleteFunc(slices.Clone(f.defining), func(flag string) bool { return !f.given(flag) })
	switch {
	case f.file != "" && len(args) > 0:
		return usage("--file excludes a name", "the file has the names", "")
	case f.file != "" && len(others) > 0:
		return usage("--file excludes --"+strings.Join(others, ", --"), "the file has the whole definitions", "")
	case f.file != "":
		var err error
		if definitions, err = a.readDefinitions(f.file); err != nil {
			return err
		}
	case len(args) == 0:
		return usage("there is no name", "", "give a name and --task, or --file")
	default:
		definition, err := f.definition(time.Now())
		if err != nil {
			return err
		}
		definitions[args[0]] = definition
	}
	return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
		entries, err := a.parseEntries(definitions, s.config.Zone)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := a.mayPut(ctx, s, e.Name, f.anyway); err != nil {
				return err
			}
		}
		if err := s.Put(ctx, entries...); err != nil {
			name := entries[0].Name
			if of, ok := errors.AsType[*scheduler.EntryError](err); ok {
				name = of.Entry
			}
			return a.entryFailure(ctx, s, name, err)
		}
		for _, e := range entries {
			fmt.Fprintf(a.stderr, "%s: the schedule has the entry %s\n", a.name, printable(e.Name))
		}
		return nil
	})
}

// parseEntries reads definitions, all or none, and tells every mistake.
func (a *app) parseEntries(definitions map[string]any, zone *time.Location) ([]*scheduler.Entry, error) {
	var entries []*scheduler.Entry
	var mistakes []string
	for _, name := range slices.Sorted(maps.Keys(definitions)) {
		fields, ok := definitions[name].(map[string]any)
		if !ok {
			mistakes = append(mistakes, "entry "+printable(name)+" is no map of task, schedule and more")
			continue
		}
		e, err := scheduler.ParseEntry(name, fields, zone)
		if err == nil {
			err = neverSent(e, time.Now())
		}
		if err != nil {
			mistakes = append(mistakes, strings.Split(err.Error(), "\n")...)
			continue
		}
		entries = append(entries, e)
	}
	if len(mistakes) > 0 {
		return nil, usage(strings.Join(mistakes, "; "), "", "see "+a.name+" schedule add --help")
	}
	return entries, nil
}

// neverSent tells why a new entry would never be sent; nil: it will be, or it is paused.
func neverSent(e *scheduler.Entry, now time.Time) error {
	if e.Paused || !e.Due(scheduler.State{LastRunAt: now}).IsZero() {
		return nil
	}
	if clocked, ok := e.Schedule.(scheduler.Clocked); ok && !clocked.At.After(now) {
		return &scheduler.EntryError{Entry: e.Name, Field: "at", Err: errors.New(clocked.At.Format(time.RFC3339) + " is over, so that it would never be sent")}
	}
	if !e.End.IsZero() {
		return &scheduler.EntryError{Entry: e.Name, Field: "end", Err: errors.New("it would never be sent before " + e.End.Format(time.RFC3339))}
	}
	return &scheduler.EntryError{Entry: e.Name, Field: "schedule", Err: errors.New("it has no next moment")}
}

// mayPut tells why an entry of this name may not be written. One that is there and cannot be read takes the name, too.
func (a *app) mayPut(ctx context.Context, s *beatStore, name string, replace bool) error {
	_, err := s.Entry(ctx, name)
	there := &failure{exitFailed, "there is an entry " + printable(name) + " already", "", "give --replace to change it"}
	var wrong *scheduler.EntryError
	switch {
	case errors.Is(err, scheduler.ErrNoEntry):
		return nil
	case errors.As(err, &wrong):
		there.why = "it cannot be read: " + oneLine(err.Error())
	case err != nil:
		return err
	}
	if replace {
		return nil
	}
	return there
}

// maxDefinitions bounds what is read of a file of definitions, in bytes.
const maxDefinitions = 16 << 20

// readDefinitions reads a map of names to definitions.
func (a *app) readDefinitions(path string) (map[string]any, error) {
	in := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usage("--file: "+err.Error(), "", "")
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxDefinitions))
	if err != nil {
		return nil, usage("--file: "+err.Error(), "", "")
	}
	v, err := serialization.YAML.Decode(text) // JSON is YAML
	if err != nil {
		return nil, usage("--file "+path+" cannot be read", err.Error(), "")
	}
	all, ok := v.(map[string]any)
	if !ok || len(all) == 0 {
		return nil, usage("--file "+path+" is no map of names to definitions", "", "write for example: {nightly: {task: tasks.report, schedule: 0 3 * * *}}")
	}
	return all, nil
}

// definition is what the flags say, as scheduler.ParseEntry reads it.
func (f *entryFlags) definition(now time.Time) (map[string]any, error) {
	if f.task == "" {
		return nil, usage("there is no --task", "", "give the name of the task that is to be sent")
	}
	schedule, err := f.schedule(now)
	if err != nil {
		return nil, err
	}
	d := map[string]any{"task": f.task, "schedule": schedule}
	if f.args != "" {
		if d["args"], err = decodeFlag[[]any]("--args", f.args, "a JSON list", "--args '[2, 3]'"); err != nil {
			return nil, err
		}
	}
	if f.kwargs != "" {
		if d["kwargs"], err = decodeFlag[map[string]any]("--kwargs", f.kwargs, "a JSON object", `--kwargs '{"x": 2}'`); err != nil {
			return nil, err
		}
	}
	options, err := optionMap("option", f.options)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"queue": f.queue, "exchange": f.exchange, "routing_key": f.routingKey} {
		if text != "" {
			options[name] = text
		}
	}
	if f.given("priority") {
		options["priority"] = int64(f.priority)
	}
	if f.expires != 0 {
		options["expires"] = f.expires.duration().Seconds()
	}
	if len(options) > 0 {
		d["options"] = options
	}
	for name, text := range map[string]string{"timezone": f.timezone, "missed": f.missed, "deadline": f.deadline, "jitter": f.jitter,
		"start": f.start, "end": f.end} {
		if text != "" {
			d[name] = text
		}
	}
	for name, on := range map[string]bool{"relative": f.relative, "one_off": f.oneOff, "keep_expired": f.keepExpired} {
		if on {
			d[name] = true
		}
	}
	if f.paused {
		d["enabled"] = false
	}
	return d, nil
}

// schedule is the one kind of schedule that the flags name.
func (f *entryFlags) schedule(now time.Time) (map[string]any, error) {
	var all []string
	schedule := map[string]any{}
	for _, kind := range []struct{ name, text string }{{"every", f.every}, {"crontab", f.crontab}, {"cron", f.cron}, {"solar", f.solar}, {"at", f.at}} {
		if kind.text != "" {
			all = append(all, "--"+kind.name)
			schedule[kind.name] = kind.text
		}
	}
	if len(all) != 1 {
		return nil, usage("it takes one of --every, --crontab, --cron, --solar and --at", strings.Join(all, " and "), "")
	}
	switch {
	case f.solar != "":
		parts := strings.Split(f.solar, ",")
		if len(parts) != 3 {
			return nil, usage("invalid value for --solar", "it is an event, a latitude and a longitude", "write for example --solar sunset,52.5,13.4")
		}
		schedule["solar"] = parts[0]
		for i, name := range []string{"latitude", "longitude"} {
			var degrees float64
			v, err := serialization.DecodeJSON([]byte(strings.TrimSpace(parts[i+1])))
			if err == nil {
				err = value.Assign(&degrees, v)
			}
			if err != nil {
				return nil, usage("invalid value for --solar: "+name, err.Error(), "write for example --solar sunset,52.5,13.4")
			}
			schedule[name] = degrees
		}
	case f.at != "":
		at, err := parseMoment(f.at, now)
		if err != nil {
			return nil, usage("invalid value for --at: "+err.Error(), "", "")
		}
		if _, _, err := value.ParseISO(f.at); err != nil { // ISO 8601 may need the zone of the entry's clock
			schedule["at"] = at
		}
	}
	return schedule, nil
}

func schedulePauseCommand(a *app, verb, short string, paused bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Long: short + `

An entry that goes on after a pause does not make up for what it missed in it.

` + exitCodes,
		Example: `  gelery schedule ` + verb + ` nightly`,
		Args:    exactlyOne("the name of an entry"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
				if err := s.Pause(ctx, args[0], paused); err != nil {
					return a.entryFailure(ctx, s, args[0], err)
				}
				return nil
			})
		}),
	}
	addScheduleFlags(cmd)
	return cmd
}

func scheduleRemoveCommand(a *app) *cobra.Command {
	var sure bool
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove an entry",
		Long: `Remove an entry

What became of it is forgotten. It asks for the name once more; where nobody can be asked, --yes is needed.

` + exitCodes,
		Example: `  gelery schedule remove nightly
  gelery schedule remove nightly --yes`,
		Args: exactlyOne("the name of an entry"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			if !sure {
				if err := a.askToRemove(ctx, args[0]); err != nil {
					return err
				}
			}
			return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
				if err := s.Remove(ctx, args[0]); err != nil {
					return a.entryFailure(ctx, s, args[0], err)
				}
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&sure, "yes", false, "do not ask")
	addScheduleFlags(cmd)
	return cmd
}

// askToRemove asks for the name of an entry that is there. The store is closed meanwhile: a person may take longer than it waits.
func (a *app) askToRemove(ctx context.Context, name string) error {
	err := a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
		if _, err := s.Entry(ctx, name); errors.Is(err, scheduler.ErrNoEntry) { // what cannot be read may go
			return a.entryFailure(ctx, s, name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return a.confirmName(ctx, name)
}

// confirmName asks for a name that must be typed. Nobody at the other end is a mistake in the command, not a no.
func (a *app) confirmName(ctx context.Context, name string) error {
	needYes := usage("the removal was not confirmed", "there is no terminal to ask at", "give --yes")
	if _, isFile := a.stdin.(*os.File); isFile && !isTerminal(a.stdin) {
		return needYes
	}
	fmt.Fprintf(a.stderr, "This removes the entry %s. There is no undo.\n\nType its name to remove it: ", printable(name))
	text, err := a.answer(ctx)
	switch {
	case errors.Is(err, io.EOF):
		fmt.Fprintln(a.stderr)
		return needYes
	case err != nil:
		return err
	case strings.TrimSpace(text) != name:
		return &failure{code: exitFailed, what: "nothing was removed"}
	}
	return nil
}

// answer is a line of the standard input; io.EOF if there is none.
func (a *app) answer(ctx context.Context) (string, error) {
	answer := make(chan string, 1)
	go func() { // it stays behind in its read when the user prefers Ctrl-C; the process ends then
		defer close(answer)
		lines := bufio.NewScanner(a.stdin)
		if lines.Scan() {
			answer <- lines.Text()
		}
	}()
	select {
	case text, ok := <-answer:
		if !ok {
			return "", io.EOF
		}
		return text, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func scheduleRunCommand(a *app) *cobra.Command {
	var out output
	cmd := &cobra.Command{
		Use:   "run NAME",
		Short: "Send an entry's task now, out of its turn",
		Long: `Send an entry's task now, out of its turn

The run has an id of its own, which is printed, and the headers of the entry's runs. What beat knows of the entry does not change: it
is sent again at its next moment. A paused entry may be run, too. -o json prints {"task_id"}.

` + exitCodes,
		Example: `  gelery schedule run nightly`,
		Args:    exactlyOne("the name of an entry"),
		RunE: a.command(func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.runEntry(ctx, args[0], out)
		}),
	}
	out.add(cmd, outputPlain, outputJSON)
	addScheduleFlags(cmd)
	addBackendFlags(cmd)
	return cmd
}

func (a *app) runEntry(ctx context.Context, name string, o output) error {
	return a.withStore(ctx, func(ctx context.Context, s *beatStore) error {
		r, err := s.Entry(ctx, name)
		if err != nil {
			return a.entryFailure(ctx, s, name, err)
		}
		e := *r.Entry
		e.KeepExpired = e.KeepExpired || s.config.Loop.KeepExpired
		sig, err := e.RunNow(time.Now())
		if err != nil {
			return usage(err.Error(), "", "")
		}
		config := a.config(a.brokerURL("WRITE"), a.chordBackend(), quietLogger(a.stderr))
		dialing, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		client, closeClient, err := connectLazily(dialing, config, true)
		if err != nil {
			return err
		}
		defer closeClient()
		result, err := client.Apply(ctx, sig)
		if err != nil {
			return sendFailure(err, config.Broker)
		}
		if o == outputJSON {
			return writeJSON(a.stdout, struct {
				TaskID string `json:"task_id"`
			}{result.ID()})
		}
		_, err = fmt.Fprintln(a.stdout, result.ID())
		return err
	})
}
