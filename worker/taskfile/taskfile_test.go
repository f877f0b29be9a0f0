package taskfile

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// load writes a file and loads it.
func load(t *testing.T, text string) ([]task.Definition, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tasks.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(path)
}

// one loads a file with one task.
func one(t *testing.T, text string) task.Definition {
	t.Helper()
	all, err := load(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("%d tasks; expected 1", len(all))
	}
	return all[0]
}

func run(ctx context.Context, d task.Definition, args []any, kwargs map[string]any) (any, error) {
	r := &protocol.Request{Args: args, Kwargs: kwargs}
	r.ID, r.Task, r.Retries = "id-1", d.Name, 2
	if _, ok := task.FromContext(ctx); !ok {
		ctx = task.NewContext(ctx, &task.Info{Request: r, Logger: slog.New(slog.DiscardHandler)})
	}
	return d.Handler(ctx, r)
}

func wantException(t *testing.T, err error, class, text string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; expected %s", class)
	}
	x := task.ExceptionOf(err)
	if x.Type != class || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v; expected %s with %q", x.Type, err, class, text)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"empty":           {"", []string{"it is empty"}},
		"no list":         {"tasks: []", []string{"no tasks"}},
		"no yaml":         {"tasks: [", []string{"line 1"}},
		"unknown key":     {"tasks:\n- name: a\n  comand: [x]\n", []string{"line 3: unknown key comand; did you mean command?"}},
		"no name":         {"tasks:\n- command: [sh]\n", []string{"tasks[0]: name is missing"}},
		"neither":         {"tasks:\n- name: a\n", []string{"task a: a task has either command or http"}},
		"both":            {"tasks:\n- {name: a, command: [sh], http: {url: 'http://x/'}}\n", []string{"either command or http"}},
		"twice":           {"tasks:\n- {name: a, command: [sh]}\n- {name: a, command: [sh]}\n", []string{"the name is there twice"}},
		"input":           {"tasks:\n- {name: a, command: [sh], input: xml}\n", []string{`input: "xml" is none of json, arguments, environment, none`}},
		"output":          {"tasks:\n- {name: a, command: [sh], output: xml}\n", []string{`output: "xml" is none of json, text, none`}},
		"acks":            {"tasks:\n- {name: a, command: [sh], acks: soon}\n", []string{`acks: "soon" is none of late, early`}},
		"exit":            {"tasks:\n- {name: a, command: [sh], exit: {300: success, 3: maybe}}\n", []string{`"300" is no code`, `"maybe" is none of`}},
		"period":          {"tasks:\n- {name: a, command: [sh], time_limit: soon}\n", []string{`line 2: "soon" is neither seconds nor`}},
		"negative":        {"tasks:\n- {name: a, command: [sh], time_limit: -1}\n", []string{"line 2: -1 is no number of seconds"}},
		"limits":          {"tasks:\n- {name: a, command: [sh], time_limit: 1, soft_time_limit: 2}\n", []string{"soft_time_limit: 2s is longer than time_limit, 1s"}},
		"chosen program":  {"tasks:\n- {name: a, command: ['{{args.0}}']}\n", []string{"which no placeholder may choose"}},
		"chosen part":     {"tasks:\n- {name: a, command: ['/bin/{{args.0}}']}\n", []string{"which no placeholder may choose"}},
		"placeholder":     {"tasks:\n- {name: a, command: [sh, '{{kwarg.x}}']}\n", []string{"{{kwarg.x}} is none of"}},
		"open":            {"tasks:\n- {name: a, command: [sh, '{{args.0']}\n", []string{"a placeholder without its end"}},
		"place":           {"tasks:\n- {name: a, command: [sh, '{{args.x}}']}\n", []string{"a number from 0"}},
		"no url":          {"tasks:\n- {name: a, http: {url: nowhere}}\n", []string{"expected https://host/path"}},
		"scheme":          {"tasks:\n- {name: a, http: {url: 'file:///etc/passwd'}}\n", []string{"expected https://host/path"}},
		"chosen host":     {"tasks:\n- {name: a, http: {url: 'http://{{args.0}}/'}}\n", []string{"behind the host only"}},
		"chosen user":     {"tasks:\n- {name: a, http: {url: 'http://{{args.0}}@host/'}}\n", []string{"behind the host only"}},
		"method":          {"tasks:\n- {name: a, http: {url: 'http://x/', method: BREW}}\n", []string{`method: "BREW" is none of GET`}},
		"exit of http":    {"tasks:\n- {name: a, http: {url: 'http://x/'}, exit: {0: success}}\n", []string{"exit is for commands"}},
		"status of a cmd": {"tasks:\n- {name: a, command: [sh], status: {200: success}}\n", []string{"status is for http tasks"}},
		"several":         {"tasks:\n- {name: a, command: [sh], acks: x, output: x}\n- {name: b}\n", []string{"task a: output", "task a: acks", "task b: a task has"}},
		"two delays":      {"tasks:\n- {name: a, command: [sh], retry: {delay: 1, backoff: 1}}\n", []string{"only one of them"}},
		"short delay":     {"tasks:\n- {name: a, command: [sh], retry: {backoff: 0.5}}\n", []string{"whole seconds"}},
		"unset": {"tasks:\n- {name: a, command: [sh], dir: '${GELERY_TEST_NONE}'}\n- {name: b, http: {url: 'http://${GELERY_TEST_NONE}/'}}\n",
			[]string{"task a: dir: the variable GELERY_TEST_NONE is not set", "task b: http: url: the variable"}},
		"rate":          {"tasks:\n- {name: a, command: [sh], rate_limit: fast}\n", []string{"task a: ", "fast"}},
		"no folder":     {"tasks:\n- {name: a, command: [sh], dir: none}\n", []string{"none is no folder"}},
		"ceiling alone": {"tasks:\n- {name: a, command: [sh], retry: {backoff_max: 5}}\n", []string{"without backoff"}},
		"wrong kind":    {"tasks:\n- {name: a, command: {a: b}}\n", []string{"line 2"}},
		"two documents": {"tasks:\n- {name: a, command: [sh]}\n---\ntasks: []\n", []string{"more than one document"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := load(t, c.text)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nexpected %s", err, want)
				}
			}
		})
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	d := one(t, `{"tasks": [{"name": "a", "command": ["sh"], "queue": "q", "rate_limit": "10/m", "concurrency": 3, "time_limit": "1m30s", "soft_time_limit": 1.5,
		"acks": "early", "ignore_result": true, "track_started": true, "retry": {"max": 7, "backoff": 2, "backoff_max": 60, "jitter": false}}]}`).Defaults
	if d.Queue != "q" || *d.RateLimit != "10/m" || d.Concurrency != 3 || d.TimeLimit.Seconds() != 90 || d.SoftTimeLimit.Seconds() != 1.5 || d.AckEarly == nil || !*d.AckEarly || !*d.IgnoreResult ||
		!*d.TrackStarted || *d.MaxRetries != 7 ||
		d.RetryPolicy.Backoff.Seconds() != 2 || d.RetryPolicy.BackoffMax.Seconds() != 60 || !d.RetryPolicy.NoJitter {
		t.Errorf("%+v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("tasks:\n- {name: a, command: [sh, '{{args.0}}'], exit: {1-9: retry, '*': failure}}\n")
	f.Add("tasks:\n- {name: a, http: {url: 'http://x/{{kwargs.a}}?b={{id}}'}, status: {5xx: retry}}\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = parse([]byte(text), ".") })
}
