package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/settings"
	"github.com/gelery/gelery/task"
)

// defaultBroker is the command line's broker_url where nothing names one.
const defaultBroker = "redis://localhost:6379/0"

// prepare runs before every command: it answers flags that are Celery's alone, fills in the environment and reads the
// settings.
func (a *app) prepare(cmd *cobra.Command, args []string) error {
	if err := refuseForeignFlags(cmd); err != nil {
		return err
	}
	if module := a.env("CELERY_CONFIG_MODULE"); module != "" && cmd.GroupID != "" {
		fmt.Fprintf(a.stderr, "hint: CELERY_CONFIG_MODULE names a Python module (%s), which Go cannot read; "+
			"write its settings into a YAML file and name that in %s\n", module, settings.FileVariable)
	}
	var errs []error
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if err := a.setFromEnvironment(cmd, f); err != nil {
			errs = append(errs, err)
		}
	})
	if len(errs) > 0 {
		return errs[0]
	}
	if !usesSettings(cmd) {
		return nil
	}
	return a.loadSettings(cmd, extraArguments(cmd, args))
}

// withoutSettings marks commands that work whatever the settings are.
const withoutSettings = "without settings"

// usesSettings tells our commands from those of cobra, version and the marked ones.
func usesSettings(cmd *cobra.Command) bool {
	if cmd.Annotations[withoutSettings] != "" {
		return false
	}
	for cmd.HasParent() && cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	return cmd.GroupID != ""
}

func (a *app) setFromEnvironment(cmd *cobra.Command, f *pflag.Flag) error {
	if f.Changed || f.Hidden || f.Name == "help" || cmd.GroupID == "" {
		return nil
	}
	upper := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
	name := "CELERY_" + upper(cmd.Name()) + "_" + upper(f.Name)
	text := a.env(name)
	if text == "" {
		return nil
	}
	if err := cmd.Flags().Set(f.Name, text); err != nil {
		return usage("variable "+name+": "+flagError(err), "", "see "+cmd.CommandPath()+" --help")
	}
	if v, ok := f.Value.(*settingFlag); ok {
		v.origin = "variable " + name
	}
	return nil
}

// extraArguments are those behind "--", with which celery worker takes settings.
func extraArguments(cmd *cobra.Command, args []string) []string {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 && cmd.Name() == "worker" {
		return args[dash:]
	}
	return nil
}

// onlyExtras refuses arguments before "--".
func onlyExtras(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash >= 0 {
		args = args[:dash]
	}
	return cobra.NoArgs(cmd, args)
}

// loadSettings reads the settings from all their sources, the weakest first.
func (a *app) loadSettings(cmd *cobra.Command, extras []string) error {
	s := &settings.Settings{}
	var errs []error
	if path := firstOf(a.configFile, a.env(settings.FileVariable)); path != "" {
		errs = append(errs, s.ReadFile(path))
	}
	errs = append(errs, s.ReadEnvironment(a.env))
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v, ok := f.Value.(*settingFlag)
		if !ok || !f.Changed {
			return
		}
		origin := v.origin
		if origin == "option" {
			origin = "option --" + f.Name
		}
		for _, name := range v.names {
			errs = append(errs, s.SetOption(name, v.text, origin))
		}
	})
	for _, url := range []struct{ name, text, flag string }{{"broker_url", a.broker, "--broker"}, {"result_backend", a.backend, "--result-backend"}} {
		if url.text != "" {
			errs = append(errs, s.SetOption(url.name, url.text, "option "+url.flag))
		}
	}
	for _, extra := range extras {
		errs = append(errs, s.SetExtra(extra))
	}
	err := errors.Join(errs...)
	if err == nil {
		err = s.Check()
	}
	a.settings = s
	return settingsFailure(err)
}

// settingsFailure tells of all mistakes in the settings.
func settingsFailure(err error) error {
	if err == nil {
		return nil
	}
	mistakes := strings.Split(err.Error(), "\n")
	if len(mistakes) == 1 {
		return usage(mistakes[0], "", "")
	}
	return usage(fmt.Sprintf("%d mistakes in the settings", len(mistakes)), strings.Join(mistakes, "; "), "")
}

// brokerURL is the broker's URL for a worker ("READ") or a producer ("WRITE").
func (a *app) brokerURL(direction string) string {
	if direction == "READ" {
		return firstOf(a.settings.WorkerClient().Broker, defaultBroker)
	}
	return firstOf(a.settings.Client().Broker, defaultBroker)
}

// backendURL is the result backend's URL, empty for none. Celery's word for none is "disabled".
func (a *app) backendURL() string { return a.settings.Client().Backend }

// config is the client configuration for the URLs, of which either may be empty.
func (a *app) config(broker, backend string, log *slog.Logger) task.Config {
	c := a.settings.ClientOf(broker, backend)
	c.Logger, c.Middleware = log, a.mux.PublishMiddleware()
	return c
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// optionMap reads key=value pairs.
func optionMap(flag string, pairs []string) (map[string]any, error) {
	options := make(map[string]any, len(pairs))
	for _, p := range pairs {
		key, v, err := optionPair(p)
		if err != nil {
			return nil, usage(fmt.Sprintf("--%s %q: %v", flag, p, err), "", "")
		}
		options[key] = v
	}
	return options, nil
}

// optionPair reads a key=value pair. A value is JSON if it can be, and text if not.
func optionPair(text string) (key string, v any, err error) {
	key, value, ok := strings.Cut(text, "=")
	if !ok || key == "" {
		return "", nil, errors.New("it is no key=value pair; write for example visibility_timeout=7200")
	}
	if v, err = serialization.DecodeJSON([]byte(value)); err != nil {
		v = value
	}
	return key, v, nil
}

// seconds is a flag for a duration: a number of seconds, as Celery has it, or Go's form ("1m30s").
type seconds time.Duration

var _ pflag.Value = (*seconds)(nil)

func (s *seconds) String() string {
	if *s == 0 {
		return "" // no "(default 0s)" in the help
	}
	return time.Duration(*s).String()
}

func (s *seconds) Type() string { return "seconds" }

func (s seconds) duration() time.Duration { return time.Duration(s) }

func (s *seconds) Set(text string) error {
	d, err := settings.ParseSeconds(text)
	*s = seconds(d)
	return err
}

// parseMoment reads a point in time: ISO 8601 (UTC when it names no zone), Unix seconds, or "+10m" from now.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if rest, ok := strings.CutPrefix(text, "+"); ok {
		d, err := settings.ParseSeconds(rest)
		return now.Add(d), err
	}
	if t, _, err := value.ParseISO(text); err == nil {
		return t, nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil && n > 0 && n < 1e11 {
		return time.UnixMicro(int64(n * 1e6)).UTC(), nil
	}
	return time.Time{}, errors.New("expected ISO 8601 (2026-01-02T03:04:05+00:00), Unix seconds, or +10m")
}
