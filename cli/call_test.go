package cli

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// forEachBroker runs f against a broker inside the process and a real one. The result backend is another database of it.
func forEachBroker(t *testing.T, f func(t *testing.T, broker, backend string)) {
	t.Helper()
	for name, start := range map[string]func(testing.TB) string{"miniredis": testservice.Miniredis, "redis": testservice.Redis} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := start(t)
			f(t, url, strings.TrimSuffix(url, "0")+"1")
		})
	}
}

// startDemo starts a worker with the demo tasks and returns when it receives.
func startDemo(t *testing.T, broker, backend string, args ...string) *background {
	t.Helper()
	b := run{args: append([]string{"-b", broker, "--result-backend", backend, "worker", "--demo", "-n", "w1@test"}, args...)}.start(t)
	b.output.waitFor(t, `w1@test ready\.\n`)
	return b
}

func TestCall(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		startDemo(t, broker, backend)
		urls := []string{"-b", broker, "--result-backend", backend}
		tests := []struct {
			args []string
			code int
			want string // standard output
			errs string // standard error
		}{
			{[]string{"dev.add", "--args", "[2, 3]"}, 0, "5\n", ""},
			{[]string{"dev.add", "--args", "[2, 3.0]"}, 0, "5.0\n", ""},
			{[]string{"dev.add", "-k", `{"x": 9223372036854775807, "y": 1}`}, 0, "9223372036854775808\n", ""},
			{[]string{"dev.echo", "-a", `["<é>", 1e300, NaN]`, "-k", `{"k": null}`}, 0,
				`{"args": ["<\u00e9>", 1e+300, "NaN"], "kwargs": {"k": null}}` + "\n", ""},
			{[]string{"dev.add", "-a", "[1, 2]", "--compression", "gzip", "--priority", "9", "--expires", "60", "--countdown", "0.01"}, 0, "3\n", ""},
			{[]string{"dev.progress", "-a", "[3]"}, 0, "3\n", ""},
			{[]string{"dev.fail"}, 1, "", "Traceback (most recent call last):\nValueError: this task always fails\n"},
			{[]string{"dev.add", "-a", "[1]"}, 1, "", "Traceback (most recent call last):\nTypeError: add() missing 1 required positional argument: 'y'\n"},
			{[]string{"dev.nope"}, 1, "", "NotRegistered: dev.nope\n"},
		}
		for _, tt := range tests {
			args := append(append([]string{"call"}, tt.args...), append(urls, "--wait", "--timeout", "20")...)
			code, stdout, stderr := run{args: args}.do(t)
			if code != tt.code || compact(stdout) != compact(tt.want) || stderr != tt.errs {
				t.Errorf("%q: exit code %d, want %d\nstdout %q\n  want %q\nstderr %q\n  want %q", tt.args, code, tt.code, stdout, tt.want, stderr, tt.errs)
			}
		}
	})
}

// compact takes the spaces and escapes of a JSON text away, which differ between writers.
func compact(s string) string {
	var v any
	if json.Unmarshal([]byte(s), &v) != nil {
		return s
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber() // digits are what is compared
	if d.Decode(&v) != nil {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}

func TestCallPrintsID(t *testing.T) {
	t.Parallel()
	broker := testservice.Miniredis(t)
	if got := command(t, 0, "-b", broker, "call", "t"); !regexp.MustCompile(`^[0-9a-f-]{36}\n$`).MatchString(got) {
		t.Errorf("got %q, want a UUID", got)
	}
	if got := command(t, 0, "-b", broker, "call", "t", "--task-id", "x1"); got != "x1\n" {
		t.Errorf("got %q, want x1", got)
	}
	if got := command(t, 0, "-b", broker, "call", "t", "--task-id", "x1", "-o", "json"); got != `{"task_id":"x1"}`+"\n" {
		t.Errorf("got %q", got)
	}
}

// TestCallMessage looks at the message a call has left in the queue.
func TestCallMessage(t *testing.T) {
	t.Parallel()
	broker := testservice.Miniredis(t)
	command(t, 0, "-b", broker, "call", "shop.pay", "-q", "mail", "--task-id", "x1", "-a", "[1]", "-k", `{"b": 2.0}`, "--serializer", "yaml",
		"--priority", "3", "--eta", "2026-01-02T03:04:05+00:00", "--expires", "2027-01-02T03:04:05")
	tr, err := transport.Open(t.Context(), broker, transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tr.Close(context.Background()) }()
	consumer, err := tr.Consume(t.Context(), transport.ConsumeOptions{Queues: []transport.Queue{{Name: "mail"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close(context.Background()) }()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	got, err := consumer.Receive(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	m := got[0].Message
	if m.Headers.Task != "shop.pay" || m.Headers.ID != "x1" || m.ContentType != "application/x-yaml" || m.Properties.Priority != 3 {
		t.Errorf("task %q, id %q, content type %q, priority %d", m.Headers.Task, m.Headers.ID, m.ContentType, m.Properties.Priority)
	}
	if m.Headers.ETA != "2026-01-02T03:04:05.000000+00:00" || m.Headers.Expires != "2027-01-02T03:04:05.000000+00:00" {
		t.Errorf("eta %s, expires %s", m.Headers.ETA, m.Headers.Expires)
	}
	if m.Headers.ArgsRepr != "(1,)" || m.Headers.KwargsRepr != "{'b': 2.0}" {
		t.Errorf("args %s, kwargs %s", m.Headers.ArgsRepr, m.Headers.KwargsRepr)
	}
}

func TestResult(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		startDemo(t, broker, backend)
		command(t, 0, "-b", broker, "call", "dev.add", "-a", "[2, 3.5]", "--task-id", "good")
		command(t, 0, "-b", broker, "call", "dev.fail", "-a", `["out of <paper>"]`, "--task-id", "bad")
		result := func(code int, args ...string) string {
			return command(t, code, append([]string{"--result-backend", backend, "result", "--timeout", "20"}, args...)...)
		}
		if got := result(0, "good"); got != "5.5\n" {
			t.Errorf("good: %q", got)
		}
		if got := result(1, "bad"); got != "" {
			t.Errorf("bad: %q", got)
		}
		if got := result(0, "bad", "--traceback"); got != "Traceback (most recent call last):\nValueError: out of <paper>\n" {
			t.Errorf("traceback: %q", got)
		}
		golden(t, "result.json", result(0, "good", "-o", "json")+result(1, "bad", "-o", "json")+
			result(1, "unknown", "--wait=false", "-o", "json"))
	})
}

func TestResultNotDone(t *testing.T) {
	t.Parallel()
	backend := testservice.Miniredis(t)
	for _, tt := range []struct{ flag, want string }{
		{"--wait=false", "task x is not done: its state is PENDING"},
		{"--timeout=0.05", "task x is not done after 50ms"},
	} {
		code, stdout, stderr := run{args: []string{"--result-backend", backend, "result", "x", tt.flag}}.do(t)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, stdout %q, stderr:\n%s", tt.flag, code, stdout, stderr)
		}
	}
}

// TestCancelled gives up before anything is done; TestClientCommandBySignal does so in the middle of a wait.
func TestCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs strings.Builder
	code := Run(ctx, nil, []string{"--result-backend", testservice.Miniredis(t), "result", "x"}, &out, &errs)
	if code != exitInterrupted || out.String() != "" || errs.String() != "" {
		t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, exitInterrupted, out.String(), errs.String())
	}
}

// TestUnreachable asks servers that are not there, and one that does not want us.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	server := testservice.Redis(t)
	stranger := strings.Replace(server, "://", "://u:SECRET@", 1) // a user Redis does not know
	const away = "redis://u:SECRET@127.0.0.1:1/0"
	tests := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-b", away, "call", "x"}, exitUnavailable, "cannot reach the broker redis://u:***@127.0.0.1:1/0\n  why: dial tcp 127.0.0.1:1"},
		{[]string{"-b", away, "purge", "-f"}, exitUnavailable, "cannot reach the broker"},
		{[]string{"-b", away, "queues"}, exitUnavailable, "cannot reach the broker"},
		{[]string{"--result-backend", away, "result", "x"}, exitUnavailable, "cannot reach the result backend redis://u:***@"},
		{[]string{"-b", stranger, "call", "x"}, exitFailed, "check user and password in the URL"},
		{[]string{"-b", stranger, "worker"}, exitFailed, "check user and password in the URL"},
		{[]string{"-b", server, "worker", "--transport-option", "nope=1"}, exitFailed, `transport option "nope" is unknown`},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run{args: tt.args}.do(t)
			if code != tt.code || !strings.Contains(stderr, tt.want) || stdout != "" {
				t.Errorf("exit code %d, want %d; stdout %q; want %q in\n%s", code, tt.code, stdout, tt.want, stderr)
			}
			if strings.Contains(stderr, "SECRET") || strings.Count(stderr, "\n") != 3 {
				t.Errorf("a password, or not three lines:\n%s", stderr)
			}
		})
	}
}
