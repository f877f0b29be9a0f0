// Package taskfile makes tasks of programs and HTTP endpoints, as a file describes them: what `gelery worker --tasks` runs
// for someone who writes no Go. docs/tasks-without-code.md tells what such a file holds.
package taskfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gelery/gelery/internal/spelling"
	"github.com/gelery/gelery/task"
)

// file is a whole task file.
type file struct {
	Tasks []entry `yaml:"tasks"`
}

// entry is one task. It has a Command or an HTTP endpoint.
type entry struct {
	Name string `yaml:"name"`

	// A program.
	Command    []string          `yaml:"command"`
	Input      string            `yaml:"input"`       // inputJSON (default), inputArguments, inputEnvironment, none
	Exit       actions           `yaml:"exit"`        // by exit code
	Dir        string            `yaml:"dir"`         // working directory; relative to the file; default: the file's own
	Env        map[string]string `yaml:"env"`         // variables, placeholders allowed
	InheritEnv []string          `yaml:"inherit_env"` // names of the worker's own variables to pass on
	KillAfter  period            `yaml:"kill_after"`  // from SIGTERM to SIGKILL; default 5 s

	// An endpoint.
	HTTP   *request `yaml:"http"`
	Status actions  `yaml:"status"` // by HTTP status

	// Both.
	Output    string `yaml:"output"`     // json, text, none; default: json for programs, by content type for endpoints
	MaxOutput int    `yaml:"max_output"` // bytes; default 1 MiB
	Retry     *retry `yaml:"retry"`

	Queue         string `yaml:"queue"`
	SoftTimeLimit period `yaml:"soft_time_limit"`
	TimeLimit     period `yaml:"time_limit"`
	Concurrency   int    `yaml:"concurrency"`
	RateLimit     string `yaml:"rate_limit"`
	Acks          string `yaml:"acks"` // late (default), early
	IgnoreResult  *bool  `yaml:"ignore_result"`
	TrackStarted  *bool  `yaml:"track_started"`

	folder string // of the file
}

// request is an HTTP call.
type request struct {
	Method  string            `yaml:"method"` // default POST
	URL     string            `yaml:"url"`    // placeholders allowed behind the host, and escaped
	Headers map[string]string `yaml:"headers"`
	Body    string            `yaml:"body"`    // call, kwargs, none; default: call for POST, PUT and PATCH
	Timeout period            `yaml:"timeout"` // of the whole call; default 30 s
}

const (
	inputJSON        = "json"
	inputArguments   = "arguments"
	inputEnvironment = "environment"
	outputJSON       = "json"
	outputText       = "text"
	none             = "none"
	bodyCall         = "call"
	bodyKwargs       = "kwargs"

	defaultMaxOutput = 1 << 20
	maxMaxOutput     = 64 << 20
	defaultKillAfter = 5 * time.Second
	defaultTimeout   = 30 * time.Second
	maxFile          = 4 << 20
)

// Load reads a YAML or JSON file and makes its tasks. The error lists everything that is wrong, each with its line or its
// task.
func Load(path string) ([]task.Definition, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > maxFile:
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	definitions, err := parse(text, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return definitions, nil
}

func parse(text []byte, folder string) ([]task.Definition, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, err
	}
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("it is empty; expected a list under tasks")
		}
		return nil, readable(err)
	}
	if err := decoder.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document; expected one list under tasks")
	}
	if len(f.Tasks) == 0 {
		return nil, errors.New("no tasks; expected a list under tasks")
	}
	var definitions []task.Definition
	var wrong []error
	names := map[string]bool{}
	for i := range f.Tasks {
		e := &f.Tasks[i]
		e.folder = folder
		d, err := e.definition()
		switch {
		case err != nil:
			wrong = append(wrong, prefixed(e.title(i), err))
		case names[e.Name]:
			wrong = append(wrong, fmt.Errorf("%s: the name is there twice", e.title(i)))
		}
		names[e.Name] = true
		definitions = append(definitions, d)
	}
	return definitions, errors.Join(wrong...)
}

func (e *entry) title(i int) string {
	if e.Name == "" {
		return fmt.Sprintf("tasks[%d]", i)
	}
	return "task " + e.Name
}

// prefixed puts a title before each of several joined errors.
func prefixed(title string, err error) error {
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for i := range all {
		all[i] = fmt.Errorf("%s: %w", title, all[i])
	}
	return errors.Join(all...)
}

// readable says in an operator's words what the decoder found, one line each.
func readable(err error) error {
	wrong, ok := errors.AsType[*yaml.TypeError](err)
	if !ok {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	lines := make([]error, len(wrong.Errors))
	for i, text := range wrong.Errors {
		if line, key, ok := unknownKey(text); ok {
			text = line + ": unknown key " + key
			if near := spelling.Nearest(key, keys); near != "" {
				text += "; did you mean " + near + "?"
			}
		}
		lines[i] = errors.New(text)
	}
	return errors.Join(lines...)
}

// unknownKey takes the decoder's text about a key it does not know apart: "line 3: field comand not found in type …".
func unknownKey(text string) (line, key string, ok bool) {
	line, rest, found := strings.Cut(text, ": field ")
	key, _, ends := strings.Cut(rest, " not found in type ")
	return line, key, found && ends
}

// keys are all keys that a file may have, for hints.
var keys = []string{"tasks", "name", "command", "input", "exit", "dir", "env", "inherit_env", "kill_after", "http", "status",
	"output", "max_output", "retry", "queue", "soft_time_limit", "time_limit", "concurrency", "rate_limit", "acks",
	"ignore_result", "track_started", "method", "url", "headers", "body", "timeout", "max", "delay", "backoff", "backoff_max", "jitter"}

// definition checks an entry and makes its task.
func (e *entry) definition() (task.Definition, error) {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if e.Name == "" {
		complain("name is missing")
	}
	if (len(e.Command) > 0) == (e.HTTP != nil) {
		complain("a task has either command or http")
	}
	if e.MaxOutput < 0 || e.MaxOutput > maxMaxOutput {
		complain("max_output: %d is not from 1 to %d", e.MaxOutput, maxMaxOutput)
	}
	e.MaxOutput = either(e.MaxOutput, defaultMaxOutput)
	e.oneOf(complain, "output", e.Output, "", outputJSON, outputText, none)
	e.oneOf(complain, "acks", e.Acks, "", "late", "early")
	if e.Concurrency < 0 {
		complain("concurrency: %d is negative", e.Concurrency)
	}
	if e.SoftTimeLimit > 0 && e.TimeLimit > 0 && e.SoftTimeLimit > e.TimeLimit {
		complain("soft_time_limit: %v is longer than time_limit, %v", e.SoftTimeLimit, e.TimeLimit)
	}
	var handler task.Handler
	if e.HTTP != nil {
		handler = e.endpoint(complain)
	} else {
		handler = e.program(complain)
	}
	options := append(e.options(), e.policy(complain)...)
	if len(wrong) > 0 {
		return task.Definition{}, errors.Join(wrong...)
	}
	t, err := task.TryDefine[task.Raw, any](e.Name, options...)
	if err != nil {
		return task.Definition{}, err
	}
	return task.Definition{Name: e.Name, Defaults: t.Defaults(), Handler: handler}, nil
}

func (e *entry) oneOf(complain func(string, ...any), key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		complain("%s: %q is none of %s", key, value, strings.Join(slices.DeleteFunc(allowed, func(s string) bool { return s == "" }), ", "))
	}
}

// options are the entry's settings that any task may have.
func (e *entry) options() (options []task.DefineOption) {
	add := func(o task.DefineOption) { options = append(options, o) }
	if e.Queue != "" {
		add(task.Queue(e.Queue))
	}
	if e.SoftTimeLimit > 0 {
		add(task.SoftTimeLimit(time.Duration(e.SoftTimeLimit)))
	}
	if e.TimeLimit > 0 {
		add(task.TimeLimit(time.Duration(e.TimeLimit)))
	}
	if e.RateLimit != "" {
		add(task.RateLimit(e.RateLimit))
	}
	if e.Concurrency > 0 {
		add(task.Concurrency(e.Concurrency))
	}
	if e.Acks == "early" {
		add(task.AckEarly())
	}
	if e.IgnoreResult != nil {
		add(task.IgnoreResult(*e.IgnoreResult))
	}
	if e.TrackStarted != nil {
		add(task.TrackStarted(*e.TrackStarted))
	}
	return options
}

// either returns a unless it is zero, then b.
func either[T comparable](a, b T) T {
	var zero T
	if a == zero {
		return b
	}
	return a
}

// period is a duration in a file: seconds, as Celery's settings have it, or Go's form, "1m30s".
type period time.Duration

// UnmarshalYAML implements yaml.Unmarshaler.
func (p *period) UnmarshalYAML(node *yaml.Node) error {
	var seconds float64
	if node.Decode(&seconds) == nil {
		if !(seconds >= 0 && seconds < 1e9) {
			return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %s is no number of seconds from 0 to 1e9", node.Line, node.Value)}}
		}
		*p = period(seconds * float64(time.Second))
		return nil
	}
	d, err := time.ParseDuration(node.Value)
	if err != nil || d < 0 {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is neither seconds nor a duration such as 1m30s", node.Line, node.Value)}}
	}
	*p = period(d)
	return nil
}
