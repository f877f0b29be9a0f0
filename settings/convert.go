package settings

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/task"
)

// maxNodes bounds what one value may hold, aliases followed: a file may not grow in memory.
const maxNodes = 100_000

// convert turns what a source has into a setting's value: a string, int, bool, time.Duration, []string, map[string]any,
// []transport.Queue, []task.Route, []worker.Limit, or for Any whatever it is. Nil means unset. The text of a variable or an option is a
// scalar node.
func (s *Setting) convert(n *yaml.Node) (any, error) {
	n, err := s.structured(n)
	if err != nil {
		return nil, err
	}
	if isNull(n) {
		return nil, nil
	}
	var v any
	switch s.Type {
	case Text:
		v, err = text(n)
	case URL:
		v, err = urls(n)
	case Boolean:
		v, err = boolean(n)
	case Integer:
		v, err = s.integer(n)
	case KiB:
		var count int
		count, err = s.integer(n)
		v = int64(count) * 1024
	case Seconds:
		v, err = seconds(n)
	case Names:
		v, err = names(n)
	case Options, Schedule:
		v, err = options(n)
	case Queues:
		v, err = readQueues(n)
	case Routes:
		v, err = readRoutes(n)
	case Limits:
		v, err = readLimits(n)
	case Rate:
		v, err = rate(n)
	default:
		v, err = plain(n)
	}
	if err == nil {
		err = s.examine(v)
	}
	return v, err
}

// examine checks a value of the right type.
func (s *Setting) examine(v any) error {
	if s.instead != "" && v != false && v != "" {
		return errors.New("it has no counterpart here; " + s.instead)
	}
	if len(s.choices) > 0 {
		for _, c := range s.choices {
			if v == c {
				return nil
			}
		}
		return &wrongKind{what: fmt.Sprintf("%q", v)}
	}
	if s.check != nil {
		return s.check(v)
	}
	return nil
}

// wrongKind is the error of a value that is not of the setting's type; what is allowed is added where the setting is known.
type wrongKind struct {
	what     string
	unquoted bool // a text is expected, and this is YAML of another type
}

func (e *wrongKind) Error() string {
	if e.unquoted {
		return e.what + " is no text, write it in quotes"
	}
	return e.what + " is not allowed"
}

// explain adds to an error about a value's type what is allowed. It leaves a value out that may hold a secret.
func (s *Setting) explain(err error) error {
	if s.confidential() {
		var wrong *wrongKind
		if !errors.As(err, &wrong) {
			return err // which tells no value
		}
		err = &wrongKind{what: "the value (it is not shown)", unquoted: wrong.unquoted}
	}
	if wrong, ok := err.(*wrongKind); ok && !wrong.unquoted { //nolint:errorlint // one that is wrapped is about a part of the value
		return fmt.Errorf("%w; allowed: %s", err, s.allowed())
	}
	return err
}

// structured reads the text of a variable or an option for a setting that is more than a scalar: YAML, so also JSON.
func (s *Setting) structured(n *yaml.Node) (*yaml.Node, error) {
	switch s.Type {
	case Options, Queues, Routes, Limits, Schedule, Any:
	default:
		return n, nil
	}
	if n.Kind != yaml.ScalarNode || n.Line != 0 || n.Value == "" {
		return n, nil
	}
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(n.Value), &document); err != nil || len(document.Content) == 0 {
		return nil, &wrongKind{what: shown(n)}
	}
	return document.Content[0], nil
}

// resolve follows an alias.
func resolve(n *yaml.Node) *yaml.Node {
	for range 16 {
		if n.Kind != yaml.AliasNode {
			break
		}
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = resolve(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// shown is a node in an error.
func shown(n *yaml.Node) string {
	switch n = resolve(n); n.Kind {
	case yaml.ScalarNode:
		if n.ShortTag() == "!!str" || n.Line == 0 {
			if len(n.Value) > 100 {
				return strconv.Quote(n.Value[:100]) + "..."
			}
			return strconv.Quote(n.Value)
		}
		return n.Value
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	return "this"
}

// scalar is the text of a scalar.
func scalar(n *yaml.Node) (string, error) {
	n = resolve(n)
	if n.Kind != yaml.ScalarNode {
		return "", &wrongKind{what: shown(n)}
	}
	return n.Value, nil
}

// text reads a string. A number or a bool is refused: to guess its spelling would be wrong sometimes.
func text(n *yaml.Node) (string, error) {
	v, err := scalar(n)
	if err == nil && resolve(n).ShortTag() != "!!str" {
		return "", &wrongKind{what: v, unquoted: true}
	}
	return v, err
}

func urls(n *yaml.Node) (string, error) {
	if n = resolve(n); n.Kind != yaml.SequenceNode {
		return text(n)
	}
	all, err := names(n)
	return strings.Join(all, ";"), err
}

func boolean(n *yaml.Node) (bool, error) {
	v, err := scalar(n)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(v) {
	case "true", "yes", "on", "1":
		return true, nil
	case "false", "no", "off", "0":
		return false, nil
	}
	return false, &wrongKind{what: shown(n)}
}

func (s *Setting) integer(n *yaml.Node) (int, error) {
	v, err := scalar(n)
	if err != nil {
		return 0, err
	}
	most := s.max
	if most == 0 {
		most = math.MaxInt32
	}
	i, err := wholeNumber(v, s.min, most)
	if err != nil {
		return 0, &wrongKind{what: shown(n)}
	}
	return i, nil
}

func wholeNumber(text string, least, most int64) (int, error) {
	i, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || i < least || i > most {
		return 0, errors.New("out of range")
	}
	return int(i), nil
}

func seconds(n *yaml.Node) (time.Duration, error) {
	v, err := scalar(n)
	if err != nil {
		return 0, err
	}
	d, err := ParseSeconds(v)
	if err != nil {
		return 0, &wrongKind{what: shown(n)}
	}
	return d, nil
}

// ParseSeconds reads a duration: a number of seconds, as Celery has it, or Go's form ("1m30s"). Neither may be negative.
func ParseSeconds(text string) (time.Duration, error) {
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

var errSeconds = errors.New("expected a number of seconds or a duration such as 1m30s, not negative")

func names(n *yaml.Node) ([]string, error) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode {
		v, err := text(n)
		if err != nil {
			return nil, err
		}
		var all []string
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); name != "" {
				all = append(all, name)
			}
		}
		return all, nil
	}
	if n.Kind != yaml.SequenceNode {
		return nil, &wrongKind{what: shown(n)}
	}
	all := make([]string, len(n.Content))
	for i, e := range n.Content {
		v, err := text(e)
		if err != nil {
			return nil, fmt.Errorf("item %d: %w", i+1, err)
		}
		all[i] = v
	}
	return all, nil
}

func rate(n *yaml.Node) (string, error) {
	v, err := scalar(n)
	if err != nil {
		return "", err
	}
	if _, err := task.ParseRate(v); err != nil {
		return "", &wrongKind{what: shown(n)}
	}
	return v, nil
}

func options(n *yaml.Node) (map[string]any, error) {
	v, err := plain(n)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, &wrongKind{what: shown(n)}
	}
	return m, nil
}

// plain turns a node into what drivers read: nil, bool, int64, float64, string, []any, map[string]any.
func plain(n *yaml.Node) (any, error) {
	budget := maxNodes
	return plainNode(n, 0, &budget)
}

func plainNode(n *yaml.Node, depth int, budget *int) (any, error) {
	n = resolve(n)
	if *budget--; *budget < 0 || depth > 32 {
		return nil, errors.New("it is too large or nested too deep")
	}
	switch n.Kind {
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			return nil, fmt.Errorf("line %d: a value is not what its type, %s, is", n.Line, n.ShortTag()) // err has the value
		}
		if i, ok := v.(int); ok {
			return int64(i), nil
		}
		return v, nil
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, e := range n.Content {
			var err error
			if list[i], err = plainNode(e, depth+1, budget); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		err := eachKey(n, func(key string, value *yaml.Node) error {
			v, err := plainNode(value, depth+1, budget)
			m[key] = v
			return err
		})
		return m, err
	}
	return nil, &wrongKind{what: shown(n)}
}

// eachKey walks a map in its order. All errors are told, but for a key that is given twice.
func eachKey(n *yaml.Node, do func(key string, value *yaml.Node) error) error {
	if n = resolve(n); n.Kind != yaml.MappingNode {
		return &wrongKind{what: shown(n)}
	}
	lines := map[string]int{}
	var errs []error
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode {
			return fmt.Errorf("line %d: a key is a name, not %s", key.Line, shown(key))
		}
		if first, twice := lines[key.Value]; twice {
			return fmt.Errorf("line %d: %s is given twice, first in line %d", key.Line, key.Value, first)
		}
		lines[key.Value] = key.Line
		if err := do(key.Value, n.Content[i+1]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
