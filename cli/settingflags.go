package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/settings"
)

// settingFlag is a flag that is another way to write a setting, or several that are given the same value.
type settingFlag struct {
	names  []string // of the settings
	typ    settings.Type
	text   string         // as a variable would have it
	pairs  map[string]any // of options, collected
	origin string         // "" until it is set
}

var _ pflag.Value = (*settingFlag)(nil)

// addSetting adds a flag for settings. The help tells the default of the first.
func addSetting(cmd *cobra.Command, flag, short, help string, names ...string) {
	s, err := settings.Find(names[0])
	if err != nil {
		panic(err) // a flag for a setting that the table does not have
	}
	if s.Default != "" && s.Type != settings.Boolean {
		help += " (default " + s.Default + ")"
	}
	v := &settingFlag{names: names, typ: s.Type}
	cmd.Flags().VarP(v, flag, short, help)
	if s.Type == settings.Boolean {
		cmd.Flags().Lookup(flag).NoOptDefVal = "true"
	}
}

func (f *settingFlag) String() string { return f.text }

func (f *settingFlag) Type() string {
	switch f.typ {
	case settings.Boolean:
		return "bool" // which the help does not name
	case settings.Integer, settings.KiB:
		return "number"
	}
	return string(f.typ)
}

func (f *settingFlag) Set(text string) error {
	if f.typ == settings.Options {
		return f.addPair(text)
	}
	if err := settings.ParseText(f.names[0], text); err != nil {
		return err
	}
	f.text, f.origin = text, "option"
	return nil
}

// errSecretValue is what is wrong with a value that must not be shown: options hold passwords.
type errSecretValue struct{ error }

func (e errSecretValue) Unwrap() error { return e.error }

// flagError is what pflag says of a flag, without a value that must not be shown.
func flagError(err error) string {
	invalid, ok := errors.AsType[*pflag.InvalidValueError](err)
	if secret, yes := errors.AsType[errSecretValue](err); ok && yes {
		return fmt.Sprintf("option --%s: %v", invalid.GetFlag().Name, secret)
	}
	return err.Error()
}

// addPair adds a key=value pair.
func (f *settingFlag) addPair(text string) error {
	key, v, err := optionPair(text)
	if err != nil {
		return errSecretValue{err}
	}
	if f.pairs == nil {
		f.pairs = map[string]any{}
	}
	f.pairs[key] = v
	all, err := serialization.AppendJSON(nil, f.pairs)
	f.text, f.origin = string(all), "option"
	return err
}

// addBrokerFlags adds the flags of commands that talk to a broker.
func addBrokerFlags(cmd *cobra.Command) {
	addSetting(cmd, "transport-option", "", "broker_transport_options entry `key=value`, the value as JSON; repeatable", "broker_transport_options")
}

// addBackendFlags adds the flags of commands that talk to a result backend.
func addBackendFlags(cmd *cobra.Command) {
	addSetting(cmd, "backend-option", "", "result_backend_transport_options entry `key=value`, the value as JSON; repeatable",
		"result_backend_transport_options")
	addSetting(cmd, "result-serializer", "", "`name` of the serializer of results", "result_serializer")
}

// addQueueFlags adds flags that say what the queues named on the command line are like. They must be as the rest of the
// fleet declares them. A flag is for the default queue and for any other name; Celery's settings tell the two apart.
func addQueueFlags(cmd *cobra.Command) {
	for _, choice := range []struct {
		name, usage string
		of, sets    []string
	}{
		{"queue-type", "`type` of the queues on RabbitMQ: ", []string{"classic", "quorum"},
			[]string{"task_default_queue_type", "task_create_missing_queue_type"}},
		{"exchange-type", "`type` of their exchanges: ", []string{"direct", "topic", "fanout"},
			[]string{"task_default_exchange_type", "task_create_missing_queue_exchange_type"}},
	} {
		addSetting(cmd, choice.name, "", choice.usage+strings.Join(choice.of, ", "), choice.sets...)
		_ = cmd.RegisterFlagCompletionFunc(choice.name, cobra.FixedCompletions(choice.of, cobra.ShellCompDirectiveNoFileComp))
	}
	addSetting(cmd, "max-priority", "", "x-max-priority of the queues, a `number` up to 255 (default none)", "task_queue_max_priority")
}
