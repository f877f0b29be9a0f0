package cli

import (
	"bytes"
	"context"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gelery/gelery/worker"
)

// asCommand makes this test program the stock command: a real process to send real signals to.
const asCommand = "GELERY_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		mux := worker.NewMux()
		mux.Func("stubborn", func() { select {} }) // obeys no context
		Main(mux)
	}
	goleak.VerifyTestMain(m)
}

const testLimit = 30 * time.Second

var update = flag.Bool("update", false, "write the golden files")

// golden compares with testdata/<name>, which -update writes.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (go test ./cli -update writes it anew):\n%s", path, d)
	}
}

// run is one run of the command line in this process.
type run struct {
	mux     *worker.Mux
	env     map[string]string
	stdin   io.Reader
	signals chan os.Signal
	args    []string
}

// do runs it to its end.
func (r run) do(t *testing.T) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	var out, errs bytes.Buffer
	code = r.app(&out, &errs).run(ctx, r.args)
	if ctx.Err() != nil {
		t.Fatalf("%q did not end in %v; stderr:\n%s", r.args, testLimit, &errs)
	}
	return code, out.String(), errs.String()
}

func (r run) app(stdout, stderr io.Writer) *app {
	env := maps.Clone(r.env)
	if r.stdin == nil {
		r.stdin = strings.NewReader("")
	}
	return &app{name: "gelery", mux: r.mux, stdin: r.stdin, stdout: stdout, stderr: stderr, signals: r.signals,
		env: func(name string) string { return env[name] }}
}

// command runs a command that must end with a code, and returns its standard output.
func command(t *testing.T, wantCode int, args ...string) string {
	t.Helper()
	code, stdout, stderr := run{args: args}.do(t)
	if code != wantCode {
		t.Fatalf("%q: exit code %d, want %d; stderr:\n%s", args, code, wantCode, stderr)
	}
	return stdout
}

// background is a command that runs beside the test until it is stopped. Its output can be waited for.
type background struct {
	output *transcript
	stop   context.CancelFunc
	code   <-chan int
}

// start runs the command in this process; it is stopped with the test.
func (r run) start(t *testing.T) *background {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	code := make(chan int, 1)
	b := &background{output: newTranscript(), stop: stop, code: code}
	done := make(chan struct{})
	go func() {
		defer close(done)
		code <- r.app(b.output, b.output).run(ctx, r.args)
	}()
	t.Cleanup(func() {
		stop()
		select {
		case <-done:
		case <-time.After(testLimit):
			t.Errorf("%q does not stop", r.args)
		}
		if t.Failed() {
			t.Logf("%q said:\n%s", r.args, b.output)
		}
	})
	return b
}

// wait returns the exit code.
func (b *background) wait(t *testing.T) int {
	t.Helper()
	select {
	case code := <-b.code:
		return code
	case <-time.After(testLimit):
		t.Fatalf("it does not end; it said:\n%s", b.output)
		return -1
	}
}

// transcript collects what is written and wakes those who wait for some of it.
type transcript struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced by each write
}

func newTranscript() *transcript { return &transcript{changed: make(chan struct{})} }

func (o *transcript) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(b)
}

func (o *transcript) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// waitFor waits for the first match and returns its groups.
func (o *transcript) waitFor(t *testing.T, expr string) []string {
	t.Helper()
	re := regexp.MustCompile(expr)
	limit := time.After(testLimit)
	for {
		o.mu.Lock()
		match, changed := re.FindStringSubmatch(o.text.String()), o.changed
		o.mu.Unlock()
		if match != nil {
			return match
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("nothing like %q in:\n%s", expr, o)
		}
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	const nowhere = "redis://127.0.0.1:1/0" // none of these may get as far as connecting
	tests := []struct {
		args []string
		code int
		want string // part of standard error
	}{
		{[]string{"--bogus"}, exitUsage, "unknown flag: --bogus\n  try: see gelery --help"},
		{[]string{"wrker"}, exitUsage, "unknown command wrker\n  try: did you mean: gelery worker"},
		{[]string{"upgrade", "settings", "-x"}, exitUsage, "there is no command upgrade"},
		{[]string{"beat", "--detach"}, exitUsage, "--detach: leave that to the service manager"},
		{[]string{"beat", "--scheduler", "mine"}, exitUsage, `"mine" is no scheduler; it is local, redbeat or django`},
		{[]string{"beat", "--health-addr", "box"}, exitUsage, `":box" is no address`},
		{[]string{"-b", "amqp://127.0.0.1:1", "beat", "-S", "redbeat"}, exitUsage, "the scheduler redbeat needs a Redis"},
		{[]string{"beat", "-S", "django"}, exitUsage, "the scheduler django needs a database"},
		{[]string{"beat", "extra"}, exitUsage, "extra"},
		{[]string{"schedule", "add"}, exitUsage, "there is no name"},
		{[]string{"schedule", "add", "a"}, exitUsage, "there is no --task"},
		{[]string{"schedule", "add", "a", "--task", "t"}, exitUsage, "it takes one of --every, --crontab, --cron, --solar and --at"},
		{[]string{"schedule", "add", "a", "--task", "t", "--every", "1", "--at", "+1m"}, exitUsage, "--every and --at"},
		{[]string{"schedule", "add", "a", "--task", "t", "--crontab", "0 0 30 2 *"}, exitUsage, `entry "a": schedule: day_of_month "30"`},
		{[]string{"schedule", "add", "a", "--task", "t", "--every", "1", "--timezone", "Mars"}, exitUsage, `there is no time zone of this name`},
		{[]string{"schedule", "add", "a", "--task", "t", "--solar", "sunset"}, exitUsage, "it is an event, a latitude and a longitude"},
		{[]string{"schedule", "add", "a", "--file", "-"}, exitUsage, "--file excludes a name"},
		{[]string{"schedule", "add", "--file", "-"}, exitUsage, "is no map of names to definitions"},
		{[]string{"schedule", "next", "--count", "0"}, exitUsage, "--count is 1 to 1000"},
		{[]string{"schedule", "show", "a", "-o", "table"}, exitUsage, "there is no --output table here"},
		{[]string{"schedule", "pause"}, exitUsage, "gelery schedule pause takes one argument, the name of an entry, not 0"},
		{[]string{"-A", "proj", "worker"}, exitUsage, "-A/--app: Go has no app module"},
		{[]string{"worker", "-A", "proj"}, exitUsage, "-A/--app: Go has no app module"},
		{[]string{"worker", "-P", "solo"}, exitUsage, `"solo" is not allowed; allowed: one of goroutine, process`},
		{[]string{"worker", "--heartbeat-interval", "0"}, exitUsage, `"--heartbeat-interval" flag: 0 is not allowed`},
		{[]string{"worker", "--bogus"}, exitUsage, "unknown flag: --bogus\n  try: see gelery worker --help"},
		{[]string{"worker", "extra"}, exitUsage, "extra"},
		{[]string{"worker", "-l", "LOUD"}, exitUsage, `"LOUD" is unknown`},
		{[]string{"worker", "-c", "-1"}, exitUsage, `"-1" is not allowed; allowed: a whole number from 0`},
		{[]string{"worker", "--prefetch-multiplier", "-1"}, exitUsage, `"-1" is not allowed`},
		{[]string{"worker", "--accept-content", "jsn"}, exitUsage, `unknown serializer "jsn"`},
		{[]string{"worker", "--result-serializer", "pickle"}, exitUsage, `"pickle" is no serializer that can write`},
		{[]string{"worker", "--stop-timeout", "-1s"}, exitUsage, "seconds"},
		{[]string{"worker", "--transport-option", "visibility_timeout"}, exitUsage, "is no key=value pair"},
		{[]string{"worker", "--transport-option", "hunter2"}, exitUsage, "option --transport-option: "},
		{[]string{"worker", "-f", "/tmp/%n%I.log"}, exitUsage, "patterns with % are not expanded"},
		{[]string{"worker", "--log-format", "xml"}, exitUsage, `"xml" is unknown`},
		{[]string{"-b", "kafka://h", "worker"}, exitUsage, "unknown scheme kafka\n  try: known here: amqp, amqps, memory, pyamqp, redis"},
		{[]string{"-b", "localhost", "call", "x"}, exitUsage, "the broker has no valid URL"},
		{[]string{"call"}, exitUsage, "gelery call takes one argument, the name of a task, not 0"},
		{[]string{"call", "a", "b"}, exitUsage, "not 2"},
		{[]string{"call", "x", "-a", "{"}, exitUsage, "invalid value for --args"},
		{[]string{"call", "x", "-a", "1"}, exitUsage, "it is not a JSON list"},
		{[]string{"call", "x", "-k", "[1]"}, exitUsage, "it is not a JSON object"},
		{[]string{"call", "x", "--eta", "tomorrow"}, exitUsage, "invalid value for --eta"},
		{[]string{"call", "x", "--expires", "never"}, exitUsage, "invalid value for --expires"},
		{[]string{"call", "x", "--eta", "+1m", "--countdown", "5"}, exitUsage, "exclude each other"},
		{[]string{"call", "x", "--serializer", "pickle"}, exitUsage, `"pickle" is no serializer that can write`},
		{[]string{"call", "x", "--wait"}, exitUsage, "--wait needs a result backend"},
		{[]string{"result", "x"}, exitUsage, "there is no result backend to ask"},
		{[]string{"queues", "--quarantine", "a", "-Q", "b"}, exitUsage, "quarantine queues"},
		{[]string{"queues", "--purge-quarantine", "a", "-w"}, exitUsage, "purge-quarantine watch"},
		{[]string{"queues", "--quarantine", "a", "-w", "--limit", "0"}, exitUsage, "--limit 0 is not at least 1"},
		{[]string{"amqp", "bogus"}, exitUsage, "unknown command gelery amqp bogus\n  try: see gelery amqp --help"},
		{[]string{"graph", "bootsteps"}, exitUsage, "unknown command gelery graph bootsteps\n  try: see gelery graph --help"},
		{[]string{"list", "binding"}, exitUsage, "did you mean: gelery list bindings"},
		{[]string{"amqp", "queue.delte", "q"}, exitUsage, "did you mean: gelery amqp queue.delete"},
		{[]string{"amqp", "queue.delete"}, exitUsage, "gelery amqp queue.delete takes QUEUE, not 0 arguments"},
		{[]string{"amqp", "queue.bind", "q"}, exitUsage, "takes QUEUE EXCHANGE [ROUTING_KEY], not 1 argument"},
		{[]string{"amqp", "queue.declare", "q", "--bogus"}, exitUsage, "try: see gelery amqp queue.declare --help"},
		{[]string{"doctor", "celery"}, exitUsage, "celery"},
		{[]string{"doctor", "-o", "xml"}, exitUsage, `"xml" is not table, plain or json`},
		{[]string{"purge", "-o", "xml"}, exitUsage, `"xml" is not table, plain, json, jsonl or yaml`},
		{[]string{"-b", nowhere, "dev"}, exitUsage, "dev brings its own broker"},
		{[]string{"dev", "--port", "99999"}, exitFailed, "cannot listen on port 99999"},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run{args: tt.args, env: map[string]string{"CELERY_BROKER_URL": nowhere}}.do(t)
			if code != tt.code || !strings.Contains(stderr, tt.want) {
				t.Errorf("exit code %d, want %d; want %q in\n%s", code, tt.code, tt.want, stderr)
			}
			if stdout != "" {
				t.Errorf("standard output has %q", stdout)
			}
			if n := strings.Count(stderr, "\n"); n > 3 {
				t.Errorf("%d lines, want 3 at most:\n%s", n, stderr)
			}
		})
	}
}
