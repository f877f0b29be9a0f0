// Package examples runs every example, so that none rots.
package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
)

// build compiles an example.
func build(t *testing.T, name string) string {
	t.Helper()
	exe := filepath.Join(t.TempDir(), filepath.Base(name))
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", exe, "./"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	return exe
}

func TestQuickstart(t *testing.T) {
	t.Parallel()
	broker := testservice.Miniredis(t)
	worker, producer := build(t, "quickstart/worker"), build(t, "quickstart/producer")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := exec.CommandContext(ctx, worker, "worker", "--broker", broker, "--result-backend", broker)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	// The producer waits for its result, so the worker need not be ready before.
	out, err := exec.CommandContext(ctx, producer, broker, broker).CombinedOutput()
	if err != nil || string(out) != "2 + 3 = 5\n" {
		t.Errorf("producer: %v: %s", err, out)
	}
	if err := w.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := w.Wait(); err != nil {
		t.Errorf("the worker did not stop warm: %v", err)
	}
}

// TestExamples runs the examples that bring everything with them, from the folder in which their comments say to, and
// compares what they print.
func TestExamples(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"delay": "Ada was reminded a second later: true\nGrace was reminded at her time: true\n" +
			"Edsger's reminder had expired before: true\n",
		"retry": "charge, attempt 1\ncharge, attempt 2\ncharge, attempt 3\ncharged 995 cents\n" +
			"ship, attempt 1\nship, attempt 2\ngiven up: Exception: no van\n",
		"exec-and-http": "words: 6 <nil>\nno such file: true\nhello Ada <nil> after 2 calls\n",
		"rate-limit": "six mails took a second: true\nthe reports were built one after the other: true\n" +
			"the page did not wait for the mails: true\n",
		"middleware": "sending shop.greet\nrunning shop.greet\nsucceeded: hello Ada\n" +
			"sending shop.greet\nrunning shop.greet\non failure: there is nobody to greet\n" +
			"failed: Exception: there is nobody to greet\n",
		"graceful-stop": "page 1 has begun, the worker is stopped\npage 1 printed by the first worker\n" +
			"page 2 printed by the second worker\npage 3 printed by the second worker\n",
		"revoke": "the mail of in an hour is revoked: true\nrender was told to end: true\nthe rendering is revoked: true\n",
		"time-limit": "jobs.polite returned: half of it is done, the rest is cleaned up\n" +
			"jobs.stubborn was killed at its time limit\njobs.quick returned: quick\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			exe := build(t, name)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, exe)
			cmd.Dir = ".."
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != want {
				t.Errorf("%v, it said:\n%s\nexpected:\n%s", err, out, want)
			}
		})
	}
}

// TestEveryExampleRuns finds examples that no test runs.
func TestEveryExampleRuns(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("examples_test.go")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.IsDir() && f.Name() != "site" && !strings.Contains(string(source), `"`+f.Name()) {
			t.Errorf("no test runs examples/%s", f.Name())
		}
	}
}
