package settings

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// Type is the kind of a setting's values.
type Type string

// The types. In a file each is the YAML one would expect; in a variable or an option it is text.
const (
	Text     Type = "text"
	URL      Type = "URL"        // or a list of them, or several with semicolons between: tried in turn
	Boolean  Type = "true/false" // in variables also yes, on, 1 and their opposites
	Integer  Type = "integer"
	Seconds  Type = "seconds"  // a number, or Go's form of a duration: 1m30s
	KiB      Type = "KiB"      // an integer of 1,024 bytes
	Names    Type = "names"    // a list; in variables separated by commas
	Options  Type = "options"  // a map; in variables JSON
	Queues   Type = "queues"   // a list of names or maps, or a map of maps
	Routes   Type = "routes"   // a map of task names or patterns to options, or a list of such maps or pairs
	Rate     Type = "rate"     // "10/s", "10/m", "10/h", or a number a second
	Schedule Type = "schedule" // a map of names to definitions of periodic tasks
	Limits   Type = "limits"   // a list of maps of task or queue, rate and concurrency
	Any      Type = "any"      // what is not looked at
)

// Setting is one row of the table.
type Setting struct {
	Name    string // Celery's, in lower case
	Type    Type
	Default string // as one would write it, "" for none
	Meaning string // in a few words
	Own     bool   // Celery has no setting of this name

	choices  []string
	min, max int64               // of an Integer or KiB
	check    func(any) error     // what else must hold
	use      func(*configs, any) // nil: see below
	without  string              // why the setting has no effect here
	instead  string              // why the setting is refused unless it is off, and what to do
}

// configs are what settings are applied to.
type configs struct {
	client task.Config
	worker worker.Config
	beat   Beat

	amqp, redis map[string]any // options of the broker's driver, if it is that one

	redisBackend, databaseBackend map[string]any // of the result backend's, if it is Redis or a database
}

// to applies a setting to a field.
func to[T any](field func(*configs) *T) func(*configs, any) {
	return func(c *configs, v any) { *field(c) = v.(T) }
}

// toPointer applies a setting to a field that is nil when unset.
func toPointer[T any](field func(*configs) **T) func(*configs, any) {
	return func(c *configs, v any) {
		value := v.(T)
		*field(c) = &value
	}
}

// toOption applies a setting to an option of a driver.
func toOption(options func(*configs) *map[string]any, name string) func(*configs, any) {
	return func(c *configs, v any) {
		m := options(c)
		if *m == nil {
			*m = map[string]any{}
		}
		(*m)[name] = v
	}
}

func (s *Setting) allowed() string {
	switch {
	case len(s.choices) > 0:
		return "one of " + strings.Join(s.choices, ", ")
	case s.Type == Integer || s.Type == KiB:
		if s.max > 0 {
			return fmt.Sprintf("a whole number from %d to %d", s.min, s.max)
		}
		return fmt.Sprintf("a whole number, at least %d", s.min)
	}
	return map[Type]string{
		Text:     "a text",
		URL:      "a URL, or a list of them",
		Boolean:  "true or false",
		Seconds:  "a number of seconds or a duration such as 1m30s, not negative",
		Names:    "a list of names",
		Options:  "a map",
		Queues:   "a list or a map of queues",
		Routes:   "a map of task names to options, or a list of such maps",
		Schedule: "a map of names to maps of task and schedule",
		Limits:   "a list of maps of task or queue, rate and concurrency",
		Any:      "well-formed YAML or JSON",
		Rate:     `a rate such as "10/s", "10/m" or "10/h", or a number a second`,
	}[s.Type]
}

// byName finds a setting under Celery's name of today.
var byName = func() map[string]*Setting {
	m := make(map[string]*Setting, len(table))
	for i := range table {
		m[table[i].Name] = &table[i]
	}
	return m
}()

// Table is every setting that has a meaning here, in the order of the documentation. The names of the others are known
// too: see [Ignored].
func Table() []Setting { return slices.Clone(table) }

// Find is the setting of a name, which may be one of Celery's old ones in upper case or have Django's CELERY_ before it.
// For a name that is Python's alone it is a setting without effect.
func Find(name string) (*Setting, error) {
	for _, candidate := range candidates(name) {
		if s := byName[candidate]; s != nil {
			return s, nil
		}
		if why := python(candidate); why != "" {
			return &Setting{Name: candidate, Type: Any, without: why}, nil
		}
	}
	return nil, unknownName(name)
}
