package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
)

const (
	defaultBroker = "redis://localhost:6379/0"
	defaultQueue  = "celery" // task_default_queue
)

// settingNames are the variables of settings that are a flag here and none of celery's, beside the flag's own variable.
var settingNames = map[string]string{
	"accept-content":    "CELERY_ACCEPT_CONTENT",
	"result-serializer": "CELERY_RESULT_SERIALIZER",
	"result-extended":   "CELERY_RESULT_EXTENDED",
	"track-started":     "CELERY_TASK_TRACK_STARTED",
	"max-priority":      "CELERY_TASK_QUEUE_MAX_PRIORITY",
}

// prepare runs before every command: it answers flags that are Celery's alone and fills in the environment.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if err := refuseForeignFlags(cmd); err != nil {
		return err
	}
	if module := a.env("CELERY_CONFIG_MODULE"); module != "" && cmd.GroupID != "" {
		fmt.Fprintf(a.stderr, "hint: CELERY_CONFIG_MODULE names a Python module (%s), which Go cannot read; "+
			"give its settings as options or CELERY_* variables\n", module)
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
	return nil
}

func (a *app) setFromEnvironment(cmd *cobra.Command, f *pflag.Flag) error {
	if f.Changed || f.Hidden || f.Name == "help" || cmd.GroupID == "" {
		return nil
	}
	upper := func(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }
	for _, name := range []string{"CELERY_" + upper(cmd.Name()) + "_" + upper(f.Name), settingNames[f.Name]} {
		text := a.env(name)
		if name == "" || text == "" {
			continue
		}
		if err := cmd.Flags().Set(f.Name, text); err != nil {
			return usage("variable "+name+": "+err.Error(), "", "see "+cmd.CommandPath()+" --help")
		}
		return nil
	}
	return nil
}

// brokerURL is the broker's URL for a worker ("READ") or a producer ("WRITE").
func (a *app) brokerURL(direction string) string {
	return firstOf(a.broker, a.env("CELERY_BROKER_"+direction+"_URL"), a.env("CELERY_BROKER_URL"), defaultBroker)
}

// backendURL is the result backend's URL, empty for none. Celery's word for none is "disabled".
func (a *app) backendURL() string {
	url := firstOf(a.backend, a.env("CELERY_RESULT_BACKEND"))
	if url == "disabled" || strings.HasPrefix(url, "disabled:") {
		return ""
	}
	return url
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// optionMap reads key=value pairs. A value is JSON if it can be, and text if not.
func optionMap(flag string, pairs []string) (map[string]any, error) {
	options := make(map[string]any, len(pairs))
	for _, p := range pairs {
		key, text, ok := strings.Cut(p, "=")
		if !ok || key == "" {
			return nil, usage(fmt.Sprintf("--%s %q is no key=value pair", flag, p), "", "write for example --"+flag+" visibility_timeout=7200")
		}
		v, err := serialization.DecodeJSON([]byte(text))
		if err != nil {
			v = text
		}
		options[key] = v
	}
	return options, nil
}

// queueFlags say what the queues named on the command line are like. They must be as the rest of the fleet declares them.
type queueFlags struct {
	queueType, exchangeType string
	maxPriority             int
}

func (f *queueFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	for _, choice := range []struct {
		value       *string
		name, usage string
		of          []string
	}{
		{&f.queueType, "queue-type", "`type` of the queues on RabbitMQ: ", []string{"classic", "quorum"}},
		{&f.exchangeType, "exchange-type", "`type` of their exchanges: ", []string{"direct", "topic", "fanout"}},
	} {
		flags.StringVar(choice.value, choice.name, "", choice.usage+strings.Join(choice.of, ", ")+" (default "+choice.of[0]+")")
		_ = cmd.RegisterFlagCompletionFunc(choice.name, cobra.FixedCompletions(choice.of, cobra.ShellCompDirectiveNoFileComp))
	}
	flags.IntVar(&f.maxPriority, "max-priority", 0, "x-max-priority of the queues, a `number` up to 255 (default none)")
}

// configureQueues applies the flags to the default queue and to any other name. In the environment Celery tells the two
// apart.
func (a *app) configureQueues(c *task.Config, f *queueFlags) {
	c.QueueType = firstOf(f.queueType, a.env("CELERY_TASK_DEFAULT_QUEUE_TYPE"))
	c.CreateMissingQueueType = firstOf(f.queueType, a.env("CELERY_TASK_CREATE_MISSING_QUEUE_TYPE"))
	c.ExchangeType = firstOf(f.exchangeType, a.env("CELERY_TASK_DEFAULT_EXCHANGE_TYPE"))
	c.CreateMissingQueueExchangeType = firstOf(f.exchangeType, a.env("CELERY_TASK_CREATE_MISSING_QUEUE_EXCHANGE_TYPE"))
	c.QueueMaxPriority = f.maxPriority
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
	d, err := parseSeconds(text)
	*s = seconds(d)
	return err
}

var errSeconds = errors.New("expected a number of seconds or a duration such as 1m30s, not negative")

func parseSeconds(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(n >= 0) || n > 1e9 {
			return 0, errSeconds
		}
		d = time.Duration(n * float64(time.Second))
	}
	if d < 0 {
		return 0, errSeconds
	}
	return d, nil
}

// parseMoment reads a point in time: ISO 8601 (UTC when it names no zone), Unix seconds, or "+10m" from now.
func parseMoment(text string, now time.Time) (time.Time, error) {
	if rest, ok := strings.CutPrefix(text, "+"); ok {
		d, err := parseSeconds(rest)
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
