package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// source is a kind of place a value comes from, the weakest first.
type source int

const (
	fromDefault source = iota
	fromFile
	fromEnvironment
	fromOption
)

// Value is a setting that is set.
type Value struct {
	*Setting
	Value  any    // as the setting's type has it; nil: set to nothing, so that the default holds
	Origin string // "gelery.yaml:12", "variable CELERY_BROKER_URL", "option --concurrency"

	source source
	shape  any // of queues, routes and limits: as they were written
}

// Error is a mistake in one setting.
type Error struct {
	Name   string // of the setting, as it was written
	Origin string // where it came from
	Err    error  // what is wrong and what is allowed
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s: %v", e.Origin, e.Name, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// Settings are the settings of a program, each from the strongest source that has it. The zero value has none.
type Settings struct {
	values map[string]Value
}

// FileVariable names the file of settings where no path is given.
const FileVariable = "CELERY_CONFIG_FILE"

// Load reads a file of settings and then the environment. With an empty path it reads the file that the variable
// CELERY_CONFIG_FILE names, if any. Every mistake is told, each as an [*Error] in a line of its own; see [errors.Join].
func Load(path string) (*Settings, error) {
	s := &Settings{}
	if path == "" {
		path = os.Getenv(FileVariable)
	}
	var errs []error
	if path != "" {
		errs = append(errs, s.ReadFile(path))
	}
	errs = append(errs, s.ReadEnvironment(os.Getenv), s.Check())
	return s, errors.Join(errs...)
}

// ReadEnvironment takes the settings that the environment has: CELERY_TASK_ACKS_LATE for task_acks_late. An empty variable
// is none. A name of Celery's that is Python's alone is not looked for.
func (s *Settings) ReadEnvironment(env func(string) string) error {
	var errs []error
	for i := range table {
		if table[i].Type == Schedule {
			continue // CELERY_BEAT_SCHEDULE is the option --schedule of beat, as with celery
		}
		name := "CELERY_" + strings.ToUpper(table[i].Name)
		if value := env(name); value != "" {
			errs = append(errs, s.set(&table[i], table[i].Name, textNode(value), "variable "+name, fromEnvironment))
		}
	}
	return errors.Join(errs...)
}

// SetOption sets a setting from the text of an option of the command line. The origin tells of it: "option --concurrency".
func (s *Settings) SetOption(name, text, origin string) error {
	setting, err := Find(name)
	if err != nil {
		return &Error{Name: name, Origin: origin, Err: err}
	}
	return s.set(setting, name, textNode(text), origin, fromOption)
}

// SetExtra sets a setting from one of the arguments that celery worker takes behind "--": task.default_rate_limit=5/m or
// task_default_rate_limit=5/m, and _prefetch_multiplier=2 for the worker's.
func (s *Settings) SetExtra(argument string) error {
	name, text, ok := strings.Cut(argument, "=")
	origin := "argument " + name // without the value, which may be a secret
	if !ok || strings.Contains(name, ":") {
		return &Error{Name: brokerurl.Redact(name), Origin: "argument", Err: errors.New("it is no setting=value; write for example task.default_rate_limit=5/m")}
	}
	if rest, short := strings.CutPrefix(name, "_"); short {
		name = "worker_" + rest
	}
	if _, value, cast := strings.Cut(text, ")"); cast && strings.HasPrefix(text, "(") {
		text = value // Python's types, which the table knows
	}
	return s.SetOption(strings.Replace(name, ".", "_", 1), text, origin)
}

// ParseText checks the text of a setting without setting it.
func ParseText(name, text string) error {
	setting, err := Find(name)
	if err != nil {
		return err
	}
	_, err = setting.convert(textNode(text))
	return setting.explain(err)
}

func textNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// set takes a value over unless a stronger source has one.
func (s *Settings) set(setting *Setting, written string, n *yaml.Node, origin string, from source) error {
	v, err := setting.convert(n)
	if err != nil {
		return &Error{Name: written, Origin: origin, Err: setting.explain(err)}
	}
	old, again := s.values[setting.Name]
	switch {
	case again && setting.Type == Options && old.Value != nil && v != nil && old.source != from:
		weak, strong := old, Value{Value: v, Origin: origin, source: from}
		if old.source > from {
			weak, strong = strong, weak
		}
		v = merge(weak.Value.(map[string]any), strong.Value.(map[string]any))
		origin, from = weak.Origin+", "+strong.Origin, strong.source
	case again && old.source > from:
		return nil
	}
	if s.values == nil {
		s.values = map[string]Value{}
	}
	value := Value{Setting: setting, Value: v, Origin: origin, source: from}
	if setting.Type == Queues || setting.Type == Routes || setting.Type == Limits {
		if n, err = setting.structured(n); err == nil {
			value.shape, err = plain(n)
		}
		if err != nil {
			return &Error{Name: written, Origin: origin, Err: setting.explain(err)}
		}
	}
	s.values[setting.Name] = value
	return nil
}

// Get is a setting that is set, under Celery's name of today.
func (s *Settings) Get(name string) (Value, bool) {
	v, ok := s.values[name]
	return v, ok
}

// Values are the settings that are set, by name.
func (s *Settings) Values() []Value {
	all := make([]Value, 0, len(s.values))
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		all = append(all, s.values[name])
	}
	return all
}

// Ignored are the settings that are set and have no effect here, each with the reason: "imports: it is Python's alone".
// Those whose values ask for something else than what Gelery does are in Unmet.
func (s *Settings) Ignored() []string { return s.without(false) }

// Unmet are the settings that ask for something that Gelery does not do: "enable_utc: it has no effect; it is always true".
func (s *Settings) Unmet() []string { return s.without(true) }

func (s *Settings) without(unmet bool) []string {
	var all []string
	for _, v := range s.Values() {
		if v.Setting.without == "" {
			continue
		}
		why, differs := withoutEffect(v)
		if differs == unmet {
			all = append(all, v.Name+": "+why)
		}
	}
	return all
}

// Client is the configuration of a client that sends tasks.
func (s *Settings) Client() task.Config { return s.apply("broker_write_url").client }

// WorkerClient is the configuration of a worker's client. It differs from Client where broker_read_url and
// broker_write_url do.
func (s *Settings) WorkerClient() task.Config { return s.apply("broker_read_url").client }

// ClientOf is the configuration of a client of another broker and result backend than the settings name. Either may be
// empty.
func (s *Settings) ClientOf(broker, backend string) task.Config {
	c := s.applyTable()
	c.client.Broker, c.client.Backend = broker, backend
	c.addDriverOptions()
	return c.client
}

// Worker is the configuration of a worker.
func (s *Settings) Worker() worker.Config { return s.applyTable().worker }

// apply fills the configurations. The broker of a direction counts before broker_url, but for one of a stronger source.
func (s *Settings) apply(direction string) *configs {
	c := s.applyTable()
	broker, special := s.values["broker_url"], s.values[direction]
	if special.Value != nil && special.source >= broker.source {
		c.client.Broker = special.Value.(string)
	}
	c.addDriverOptions()
	return c
}

func (s *Settings) applyTable() *configs {
	c := &configs{}
	for i := range table { // in its order: some build on others
		v, ok := s.values[table[i].Name]
		if ok && v.Value != nil && v.use != nil {
			v.use(c, v.Value)
		}
	}
	return c
}

// addDriverOptions adds what is told apart by the kind of server. The maps of options win.
func (c *configs) addDriverOptions() {
	switch driver(c.client.Broker) {
	case "redis":
		c.client.TransportOptions = merge(c.redis, c.client.TransportOptions)
	case "amqp":
		c.client.TransportOptions = merge(c.amqp, c.client.TransportOptions)
	}
	switch driver(c.client.Backend) {
	case "redis":
		c.client.BackendOptions = merge(c.redisBackend, c.client.BackendOptions)
	case "db":
		c.client.BackendOptions = merge(c.databaseBackend, c.client.BackendOptions)
	}
}

// driver is the kind of server of a URL, "" for one that has none of the settings that are told apart here.
func driver(url string) string {
	scheme, _, _ := strings.Cut(url, "://")
	if strings.HasPrefix(scheme, "db+") {
		return "db"
	}
	switch scheme {
	case "redis", "rediss", "sentinel":
		return "redis"
	case "amqp", "amqps", "pyamqp":
		return "amqp"
	}
	return ""
}

// merge adds options to those of weaker names.
func merge(weak, strong map[string]any) map[string]any {
	if len(weak) == 0 {
		return strong
	}
	m := maps.Clone(weak)
	maps.Copy(m, strong)
	return m
}

// Check finds the mistakes that no setting makes alone. They are told with the settings that contradict each other.
func (s *Settings) Check() error {
	var errs []error
	c := s.apply("broker_read_url")
	if hard, soft := c.worker.TimeLimit, c.worker.SoftTimeLimit; hard > 0 && soft > hard {
		v := s.values["task_soft_time_limit"]
		errs = append(errs, &Error{v.Name, v.Origin, fmt.Errorf("%v is longer than task_time_limit, %v (%s)", soft, hard, s.values["task_time_limit"].Origin)})
	}
	c.client.Broker, c.client.Backend = "", ""
	if _, err := task.NewClient(nil, nil, c.client); err != nil && len(errs) == 0 {
		errs = append(errs, s.Named(err))
	}
	return errors.Join(errs...)
}
