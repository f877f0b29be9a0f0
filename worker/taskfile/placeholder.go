package taskfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
)

// template is text with placeholders: {{args.0}}, {{kwargs.name}}, {{id}}, {{task}}, {{retries}}. A placeholder is only ever
// a part of the one argument, value or path it stands in; what the caller sends is never read as a template, a command line
// or a URL.
type template []piece

// piece is literal text, or if read is set a placeholder.
type piece struct {
	text string // literal, or the placeholder as it is written
	read func(r *protocol.Request) (any, bool)
}

// parseTemplate reads a template. literal, if not nil, is applied to what is no placeholder.
func parseTemplate(text string, literal func(string) string) (template, error) {
	var t template
	for {
		before, rest, ok := strings.Cut(text, "{{")
		if before != "" && literal != nil {
			before = literal(before)
		}
		if before != "" {
			t = append(t, piece{text: before})
		}
		if !ok {
			return t, nil
		}
		name, after, ok := strings.Cut(rest, "}}")
		if !ok {
			return nil, fmt.Errorf("%q: a placeholder without its end", text)
		}
		p, err := placeholder(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		t, text = append(t, p), after
	}
}

func placeholder(name string) (piece, error) {
	p := piece{text: "{{" + name + "}}"}
	kind, field, _ := strings.Cut(name, ".")
	switch {
	case name == "id":
		p.read = func(r *protocol.Request) (any, bool) { return r.ID, true }
	case name == "task":
		p.read = func(r *protocol.Request) (any, bool) { return r.Task, true }
	case name == "retries":
		p.read = func(r *protocol.Request) (any, bool) { return int64(r.Retries), true }
	case kind == "kwargs" && field != "":
		p.read = func(r *protocol.Request) (any, bool) { v, ok := r.Kwargs[field]; return v, ok }
	case kind == "args":
		i, err := strconv.Atoi(field)
		if err != nil || i < 0 {
			return p, fmt.Errorf("placeholder %s: the place of an argument is a number from 0", p.text)
		}
		p.read = func(r *protocol.Request) (any, bool) {
			if i >= len(r.Args) {
				return nil, false
			}
			return r.Args[i], true
		}
	default:
		return p, fmt.Errorf("placeholder %s is none of {{args.0}}, {{kwargs.name}}, {{id}}, {{task}}, {{retries}}", p.text)
	}
	return p, nil
}

// fill puts the call's values in place of the placeholders. escape, if not nil, is applied to each value. A value that is
// missing is a TypeError, as in Python.
func (t template) fill(r *protocol.Request, escape func(string) (string, error)) (string, error) {
	var b strings.Builder
	for _, p := range t {
		if p.read == nil {
			b.WriteString(p.text)
			continue
		}
		v, ok := p.read(r)
		if !ok {
			return "", task.AsPython(fmt.Errorf("%s() missing an argument: %s", r.Task, p.text), "builtins", "TypeError")
		}
		text, err := plain(v)
		if err != nil {
			return "", err
		}
		if escape != nil {
			if text, err = escape(text); err != nil {
				return "", err
			}
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// plain is a value as a program reads it: text as it is, null as nothing, everything else as JSON.
func plain(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		if strings.ContainsRune(v, 0) {
			return "", task.AsPython(errors.New("an argument contains a NUL character"), "builtins", "ValueError")
		}
		return v, nil
	}
	text, err := serialization.AppendJSON(nil, v)
	if err != nil {
		return "", task.AsPython(fmt.Errorf("an argument has no JSON form: %w", err), "builtins", "TypeError")
	}
	return string(text), nil
}

// call is the whole call as one JSON object: what a program reads from its standard input and an endpoint from the body.
func call(r *protocol.Request) ([]byte, error) {
	args := r.Args
	if args == nil {
		args = []any{}
	}
	text, err := serialization.AppendJSON(nil, map[string]any{"id": r.ID, "task": r.Task, "args": args,
		"kwargs": keywords(r), "retries": int64(r.Retries)})
	if err != nil {
		return nil, task.AsPython(fmt.Errorf("the arguments have no JSON form: %w", err), "builtins", "TypeError")
	}
	return text, nil
}

func keywords(r *protocol.Request) map[string]any {
	if r.Kwargs == nil {
		return map[string]any{}
	}
	return r.Kwargs
}

// sortedKeywords lists the names of the keyword arguments.
func sortedKeywords(r *protocol.Request) []string { return slices.Sorted(maps.Keys(r.Kwargs)) }
