package value

import (
	"reflect"
	"slices"
	"strings"
)

// DefaultSecretNames are names of values that are secrets as a rule, see [NewSecrets].
var DefaultSecretNames = []string{"password", "passwd", "passphrase", "secret", "token", "authorization", "api_key", "access_key", "private_key",
	"credentials", "cookie"}

// hidden stands for a secret, as a text in Python's repr.
const hidden = "'********'"

// Secrets are what texts about values do not show, such as argsrepr and events: the values of parameters and of keys of a
// dict that have certain names. The zero value hides nothing.
type Secrets struct {
	endings []string // a name that ends so is one; without "-" and "_", in lower case
	names   []string // a name that is so is one
	params  []string // names of what is given by position
	rest    bool     // what is given beyond them is secret
}

// NewSecrets hides what has one of the names, or a name that ends with one: with "api_key" also stripe_api_key, X-Api-Key and
// apiKey. Letters, "-" and "_" do not matter.
func NewSecrets(names ...string) Secrets {
	s := Secrets{endings: make([]string, 0, len(names))}
	for _, name := range names {
		if name = plainName(name); name != "" {
			s.endings = append(s.endings, name)
		}
	}
	return s
}

// ParamSecrets hides what is tagged as secret in the fields of a parameter list, in those of their types and in those of the
// result, by its whole name. Params are all that may be given by position, in their order.
func ParamSecrets(fields []Field, params []string, result reflect.Type) Secrets {
	s := Secrets{params: params}
	seen := map[reflect.Type]bool{}
	for i := range fields {
		f := &fields[i]
		if f.Secret {
			s.names = append(s.names, f.Name)
			s.rest = s.rest || f.VarArgs
		}
		s.names = appendTagged(s.names, f.Type, seen)
	}
	if result != nil {
		s.names = appendTagged(s.names, result, seen)
	}
	return s
}

// appendTagged adds the names of the fields in a type that are tagged as secret.
func appendTagged(names []string, t reflect.Type, seen map[reflect.Type]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Array || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || isLeaf(t) || seen[t] {
		return names
	}
	seen[t] = true
	fields, err := Fields(t)
	if err != nil { // a value of the type can be sent nowhere
		return names
	}
	for i := range fields {
		if fields[i].Secret {
			names = append(names, fields[i].Name)
		}
		names = appendTagged(names, fields[i].Type, seen)
	}
	return names
}

// Of are the secrets of one task beside those of s, which has none of another.
func (s Secrets) Of(task *Secrets) Secrets {
	if task != nil {
		s.names, s.params, s.rest = task.names, task.params, task.rest
	}
	return s
}

// None tells whether nothing is hidden.
func (s *Secrets) None() bool { return len(s.endings)+len(s.names) == 0 && !s.rest }

// Hides tells whether what has the name is secret.
func (s *Secrets) Hides(name string) bool {
	if slices.Contains(s.names, name) {
		return true
	}
	for _, ending := range s.endings {
		if endsWith(name, ending) {
			return true
		}
	}
	return false
}

// hidesParam is Hides for what is given by position.
func (s *Secrets) hidesParam(i int) bool {
	if i < len(s.params) {
		return s.Hides(s.params[i])
	}
	return s.rest
}

// endsWith compares from the end, without regard to case, "-" and "_". It allocates nothing.
func endsWith(name, ending string) bool {
	i, j := len(name)-1, len(ending)-1
	for ; i >= 0 && j >= 0; i-- {
		c := name[i]
		if c == '-' || c == '_' {
			continue
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != ending[j] {
			return false
		}
		j--
	}
	return j < 0
}

func plainName(name string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(name))
}

// Repr is [Repr] with '********' for each secret.
func (s *Secrets) Repr(v any, max int) string {
	w := newReprWriter(max)
	w.secrets = s
	w.value(v, 0)
	return string(w.buf)
}

// ReprTuple is [ReprTuple] with '********' for each secret.
func (s *Secrets) ReprTuple(args []any, max int) string {
	w := newReprWriter(max)
	w.secrets = s
	return w.tuple(args)
}

// In tells whether there is a secret in the arguments of a call, which are canonical values. It allocates nothing.
func (s *Secrets) In(args []any, kwargs map[string]any) bool {
	if s.None() {
		return false
	}
	for i, v := range args {
		if s.hidesParam(i) || s.anyIn(v, 0, always) {
			return true
		}
	}
	return s.anyIn(kwargs, 0, always)
}

func always(any) bool { return true }

// Redact returns the arguments of a call, which are canonical values, with "********" for each secret. Where there is
// one, they are copies.
func (s *Secrets) Redact(args []any, kwargs map[string]any) ([]any, map[string]any) {
	if !s.In(args, kwargs) {
		return args, kwargs
	}
	out := make([]any, len(args))
	for i, v := range args {
		if out[i] = hidden[1 : len(hidden)-1]; !s.hidesParam(i) {
			out[i] = s.redact(v, 0)
		}
	}
	named, _ := s.redact(kwargs, 0).(map[string]any)
	return out, named
}

func (s *Secrets) redact(v any, depth int) any {
	if depth > MaxDepth {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, x := range v {
			if out[name] = hidden[1 : len(hidden)-1]; !s.Hides(name) {
				out[name] = s.redact(x, depth+1)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = s.redact(x, depth+1)
		}
		return out
	}
	return v
}

// ShownIn tells whether texts about the arguments of a call, which are canonical values, show a secret: Python's argsrepr
// and kwargsrepr do. A text that its sender has chosen may not.
func (s *Secrets) ShownIn(argsRepr, kwargsRepr string, args []any, kwargs map[string]any) bool {
	if !s.In(args, kwargs) {
		return false
	}
	for i, v := range args {
		if s.hidesParam(i) && shows(argsRepr, v) || s.anyIn(v, 0, func(x any) bool { return shows(argsRepr, x) }) {
			return true
		}
	}
	return s.anyIn(kwargs, 0, func(x any) bool { return shows(kwargsRepr, x) })
}

// shows tells whether a text shows anything of a secret, in whatever form its sender has written it: Celery's saferepr escapes
// other characters than Python's repr, the members of a dict stand in the order they were given, and either may be cut.
func shows(text string, v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			if shows(text, name) || shows(text, x) {
				return true
			}
		}
		return len(v) == 0
	case []any:
		return len(v) == 0 || slices.ContainsFunc(v, func(x any) bool { return shows(text, x) })
	case string:
		return showsText(text, v)
	}
	inner := strings.Trim(Repr(v, 64), `'"[]{}.`)
	return inner == "" || strings.Contains(text, inner)
}

// showsText looks for the pieces that nobody escapes, of each so much that hardly any other text has it. Of a secret that has no
// long ones it is the longest, and one that has none at all is taken for shown.
func showsText(text, secret string) bool {
	const short, enough = 4, 8
	longest := ""
	for piece := range strings.FieldsFuncSeq(secret, func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(`'"\`, r) }) {
		piece = piece[:min(len(piece), enough)]
		if len(piece) >= short && strings.Contains(text, piece) {
			return true
		}
		if len(piece) > len(longest) {
			longest = piece
		}
	}
	return len(longest) < short && strings.Contains(text, longest)
}

// anyIn tells whether the condition holds for a secret in a value.
func (s *Secrets) anyIn(v any, depth int, holds func(any) bool) bool {
	if depth > MaxDepth {
		return true
	}
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			if s.Hides(name) && holds(x) || s.anyIn(x, depth+1, holds) {
				return true
			}
		}
	case []any:
		for _, x := range v {
			if s.anyIn(x, depth+1, holds) {
				return true
			}
		}
	}
	return false
}
