package task

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// BindError is a call whose arguments do not fit the task's parameters. Python sees it as a TypeError; the texts are
// those of Python 3.11. It has no text of its own for a value of the wrong type, which is ours:
// "add() argument x: expected int, got str \"5\"".
type BindError struct {
	Func string // the function as Python would name it: the last part of the task's name
	Text string // e.g. "missing 1 required positional argument: 'y'"
	Err  error  // instead of Text: a value has the wrong type, a *value.TypeError as a rule
}

func (e *BindError) Error() string {
	if e.Err != nil {
		return e.Func + "() argument " + e.Err.Error()
	}
	return e.Func + "() " + e.Text
}

func (e *BindError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, PyError("TypeError")) true.
func (e *BindError) Is(target error) bool { return isPyError(target, "builtins", "TypeError") }

// bind stores the arguments in dst, a struct of the type the plan was made for. The common case is one pass over the
// parameters; whatever is wrong, check then finds the error Python would have raised first.
func (p *plan) bind(dst reflect.Value, args []any, kwargs map[string]any) error {
	used := 0 // keywords that met their parameter
	for i := range p.params {
		q := &p.params[i]
		var v any
		given := i < p.positional && i < len(args)
		if given {
			v = args[i]
		}
		if len(kwargs) > 0 && i >= p.posonly {
			if kv, ok := kwargs[q.name]; ok {
				if given {
					return p.check(args, kwargs)
				}
				v, given = kv, true
				used++
			}
		}
		field := dst.FieldByIndex(q.index)
		switch {
		case given:
			if err := q.assign(field, v); err != nil {
				return p.mismatch(q.name, err, args, kwargs)
			}
		case q.required:
			return p.check(args, kwargs)
		default:
			q.fill(field)
		}
	}
	if extra := args[min(p.positional, len(args)):]; len(extra) > 0 {
		if p.varargs == nil {
			return p.check(args, kwargs)
		}
		if err := p.varargs.collect(dst, extra); err != nil {
			return p.mismatch(p.varargs.name, err, args, kwargs)
		}
	}
	if used < len(kwargs) && !p.lenient && p.remain == nil {
		return p.check(args, kwargs)
	}
	if used < len(kwargs) && p.remain != nil {
		rest := make(map[string]any, len(kwargs)-used)
		for name, v := range kwargs {
			if i, ok := p.byName[name]; !ok || i < p.posonly {
				rest[name] = v
			}
		}
		dst.FieldByIndex(p.remain).Set(reflect.ValueOf(rest))
	}
	return nil
}

// mismatch reports a value of the wrong type, unless the call is wrong as a whole: Python would never have come to the
// value then.
func (p *plan) mismatch(name string, err error, args []any, kwargs map[string]any) error {
	if call := p.check(args, kwargs); call != nil {
		return call
	}
	return &BindError{Func: p.fn, Err: value.WithPath(err, name)}
}

// check returns what Python says about a call that breaks the call rules, nil if it breaks none. It follows the order
// in which Python looks: keywords, too many positionals, missing ones, missing keyword-only ones. Python meets the
// keywords in the order of the call; a map has none, so they are taken sorted.
func (p *plan) check(args []any, kwargs map[string]any) error {
	given := make([]bool, len(p.params))
	for i := range min(len(args), p.positional) {
		given[i] = true
	}
	for _, name := range slices.Sorted(maps.Keys(kwargs)) {
		i, known := p.byName[name]
		switch {
		case known && i >= p.posonly && given[i]:
			return p.errorf("got multiple values for argument '%s'", name)
		case known && i >= p.posonly:
			given[i] = true
		case p.remain != nil || p.lenient:
		default:
			if names := p.positionalOnlyIn(kwargs); len(names) > 0 {
				return p.errorf("got some positional-only arguments passed as keyword arguments: '%s'",
					strings.Join(names, ", "))
			}
			return p.errorf("got an unexpected keyword argument '%s'%s", name, p.hint)
		}
	}
	if len(args) > p.positional && p.varargs == nil {
		return p.tooMany(len(args), given)
	}
	if err := p.missing("positional", 0, p.positional, given); err != nil {
		return err
	}
	return p.missing("keyword-only", p.positional, len(p.params), given)
}

func (p *plan) errorf(format string, args ...any) error {
	return &BindError{Func: p.fn, Text: fmt.Sprintf(format, args...)}
}

func (p *plan) positionalOnlyIn(kwargs map[string]any) []string {
	var names []string
	for i := range p.posonly {
		if _, ok := kwargs[p.params[i].name]; ok {
			names = append(names, p.params[i].name)
		}
	}
	return names
}

// tooMany words the error of more positional arguments than parameters.
func (p *plan) tooMany(n int, given []bool) error {
	least := 0
	for least < p.positional && p.params[least].required {
		least++
	}
	takes := fmt.Sprintf("%d positional argument%s", p.positional, plural(p.positional))
	if least < p.positional {
		takes = fmt.Sprintf("from %d to %d positional arguments", least, p.positional)
	}
	keywords := 0
	for _, g := range given[p.positional:] {
		if g {
			keywords++
		}
	}
	switch {
	case keywords > 0:
		return p.errorf("takes %s but %d positional argument%s (and %d keyword-only argument%s) were given",
			takes, n, plural(n), keywords, plural(keywords))
	case n == 1:
		return p.errorf("takes %s but 1 was given", takes)
	default:
		return p.errorf("takes %s but %d were given", takes, n)
	}
}

// missing words the error of required parameters in [from, to) that got no value.
func (p *plan) missing(kind string, from, to int, given []bool) error {
	var names []string
	for i := from; i < to; i++ {
		if p.params[i].required && !given[i] {
			names = append(names, "'"+p.params[i].name+"'")
		}
	}
	n := len(names)
	var list string
	switch n {
	case 0:
		return nil
	case 1:
		list = names[0]
	case 2:
		list = names[0] + " and " + names[1]
	default:
		list = strings.Join(names[:n-1], ", ") + ", and " + names[n-1]
	}
	return p.errorf("missing %d required %s argument%s: %s", n, kind, plural(n), list)
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// plan is a compiled parameter list: how calls are bound to the fields of one struct type. It is made once per task.
type plan struct {
	fn         string  // name in error texts
	params     []param // positional ones first, then keyword-only ones
	posonly    int     // params[:posonly] cannot be given by keyword
	positional int     // params[:positional] can be given by position
	byName     map[string]int
	varargs    *variadic
	remain     []int // field that takes the other keywords; nil: none
	lenient    bool  // unknown keywords are dropped
	fields     []value.Field
	hint       string
}

// param is one named parameter.
type param struct {
	name     string
	index    []int // of the field, as for FieldByIndex
	assign   assigner
	required bool
	preset   reflect.Value // default that can be shared between calls
	text     string        // default that cannot: decoded anew for each call, so that no call sees another's changes
	posonly  bool
	kwonly   bool
}

type assigner = func(dst reflect.Value, src any) error

// variadic is the field that takes the positional arguments beyond the parameters.
type variadic struct {
	name   string
	index  []int
	assign assigner // of one element
}

func (v *variadic) collect(dst reflect.Value, extra []any) error {
	field := dst.FieldByIndex(v.index)
	list := reflect.MakeSlice(field.Type(), len(extra), len(extra))
	for i, x := range extra {
		if err := v.assign(list.Index(i), x); err != nil {
			return value.WithPath(err, "["+strconv.Itoa(i)+"]")
		}
	}
	field.Set(list)
	return nil
}

// structPlan compiles the parameter list that a struct type spells.
func structPlan(taskName string, t reflect.Type) (*plan, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("arguments are a struct with one field per parameter, not %s", t)
	}
	fields, err := value.Fields(t)
	if err != nil {
		return nil, err
	}
	p := &plan{fn: functionName(taskName), fields: fields}
	for i := range fields {
		f := &fields[i]
		if throughPointer(t, f.Index) {
			return nil, fmt.Errorf("parameter %q: it is in an embedded pointer; embed the struct itself", f.Name)
		}
		if err := p.addField(f); err != nil {
			return nil, fmt.Errorf("parameter %q: %w", f.Name, err)
		}
	}
	return p, p.order()
}

// functionName is the last part of a task's name: the function as Python's errors name it.
func functionName(taskName string) string { return taskName[strings.LastIndexByte(taskName, '.')+1:] }

// throughPointer reports whether a field lies in an embedded pointer, which may be nil.
func throughPointer(t reflect.Type, index []int) bool {
	for _, i := range index[:len(index)-1] {
		if t = t.Field(i).Type; t.Kind() == reflect.Pointer {
			return true
		}
	}
	return false
}

// secrets are what is not to be shown of the task's arguments and its result.
func (p *plan) secrets(result reflect.Type) *value.Secrets {
	params := make([]string, p.positional)
	for i := range params {
		params[i] = p.params[i].name
	}
	s := value.ParamSecrets(p.fields, params, result)
	return &s
}

func (p *plan) addField(f *value.Field) error {
	if (f.Remain || f.VarArgs) && (f.Default != nil || f.KwOnly || f.PosOnly || f.Remain == f.VarArgs) {
		return errors.New("remain and varargs stand alone in a task tag")
	}
	switch {
	case f.Remain:
		if f.Type != reflect.TypeFor[map[string]any]() {
			return fmt.Errorf("remain needs a map[string]any, not %s", f.Type)
		}
		if p.remain != nil {
			return errors.New("a second remain field")
		}
		p.remain = f.Index
		return nil
	case f.VarArgs:
		if f.Type.Kind() != reflect.Slice {
			return fmt.Errorf("varargs needs a slice, not %s", f.Type)
		}
		if p.varargs != nil {
			return errors.New("a second varargs field")
		}
		assign, err := value.AssignerFor(f.Type.Elem())
		p.varargs = &variadic{name: f.Name, index: f.Index, assign: assign}
		return err
	}
	assign, err := value.AssignerFor(f.Type)
	if err != nil {
		return err
	}
	q := param{name: f.Name, index: f.Index, assign: assign, required: f.Default == nil, posonly: f.PosOnly}
	q.kwonly = f.KwOnly || p.varargs != nil
	if f.Default != nil {
		if err := q.setDefault(f.Type, *f.Default); err != nil {
			return fmt.Errorf("default %q: %w", *f.Default, err)
		}
	}
	p.params = append(p.params, q)
	return nil
}

// order sorts keyword-only parameters behind the positional ones, fills the index by name, and refuses lists that
// Python's grammar refuses.
func (p *plan) order() error {
	slices.SortStableFunc(p.params, func(a, b param) int {
		switch {
		case a.kwonly == b.kwonly:
			return 0
		case b.kwonly:
			return -1
		}
		return 1
	})
	p.byName = make(map[string]int, len(p.params))
	optional := ""
	for i, q := range p.params {
		if _, dup := p.byName[q.name]; dup {
			return fmt.Errorf("two parameters are named %q", q.name)
		}
		p.byName[q.name] = i
		if q.kwonly {
			if q.posonly {
				return fmt.Errorf("parameter %q is positional-only and keyword-only", q.name)
			}
			continue
		}
		p.positional++
		if q.posonly {
			if p.posonly != i {
				return fmt.Errorf("positional-only parameter %q follows one that is not", q.name)
			}
			p.posonly++
		}
		if q.required && optional != "" {
			return fmt.Errorf("parameter %q without a default follows %q with one", q.name, optional)
		}
		if !q.required {
			optional = q.name
		}
	}
	return nil
}

// arguments reads the fields of src back into a call.
func (p *plan) arguments(src reflect.Value) (args []any, kwargs map[string]any) {
	n := p.positional
	var extra reflect.Value
	if p.varargs != nil {
		extra = src.FieldByIndex(p.varargs.index)
		n += extra.Len()
	}
	args = make([]any, 0, n)
	for i := range p.params[:p.positional] {
		args = append(args, src.FieldByIndex(p.params[i].index).Interface())
	}
	for i := range n - p.positional {
		args = append(args, extra.Index(i).Interface())
	}
	if p.remain != nil {
		rest := src.FieldByIndex(p.remain).Interface().(map[string]any)
		kwargs = make(map[string]any, len(rest)+len(p.params)-p.positional)
		for k, v := range rest {
			kwargs[k] = v
		}
	}
	for _, q := range p.params[p.positional:] {
		if kwargs == nil {
			kwargs = make(map[string]any, len(p.params)-p.positional)
		}
		kwargs[q.name] = src.FieldByIndex(q.index).Interface()
	}
	return args, kwargs
}

// setDefault reads a default from its tag: JSON, one of Python's None, True and False, or else plain text.
func (q *param) setDefault(t reflect.Type, text string) error {
	switch text {
	case "None":
		text = "null"
	case "True":
		text = "true"
	case "False":
		text = "false"
	}
	q.text = text
	v := reflect.New(t).Elem()
	if err := q.assignDefault(v); err != nil {
		return err
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer, reflect.Interface, reflect.Struct, reflect.Array:
		// May hold something a handler could change.
	default:
		q.preset = v
	}
	return nil
}

func (q *param) assignDefault(dst reflect.Value) error {
	if dst.Kind() == reflect.String && dst.Type() == reflect.TypeFor[string]() {
		dst.SetString(q.text)
		return nil
	}
	if v, err := serialization.DecodeJSON([]byte(q.text)); err == nil {
		if q.assign(dst, v) == nil {
			return nil
		}
	}
	return q.assign(dst, q.text)
}

// fill stores the default in a field of a call that did not give the parameter.
func (q *param) fill(dst reflect.Value) {
	if q.preset.IsValid() {
		dst.Set(q.preset)
		return
	}
	// It worked when the plan was made, and nothing in it depends on more than its text.
	_ = q.assignDefault(dst)
}
