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
	"github.com/gelery/gelery/interop"
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

// TestMixedCanvas runs the example of two languages, with the Python worker that its comment tells of.
func TestMixedCanvas(t *testing.T) {
	t.Parallel()
	python := interop.FindVersion(t, "5.6")
	broker := testservice.Redis(t)
	backend := broker[:len(broker)-1] + "1"
	here, err := filepath.Abs("mixed-canvas")
	if err != nil {
		t.Fatal(err)
	}
	celery := python.Command(t, interop.Settings{}, "celery", "-A", "tasks", "-b", broker, "--result-backend", backend,
		"worker", "-Q", "python", "-P", "solo", "-l", "info", "--without-mingle", "--without-gossip")
	celery.Dir = here
	celery.Env = append(celery.Env, "PYTHONPATH="+here)
	interop.Start(t, "celery", celery)
	exe := build(t, "mixed-canvas")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// It waits for its result, so the Python worker need not be ready before.
	out, err := exec.CommandContext(ctx, exe, broker, backend).Output()
	if err != nil || string(out) != "rated 4.0 on average\n" {
		t.Errorf("%v: %s", err, out)
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
		"chain":          "the word is there 3 times\nthe page: a task is a task is a task\nfailed: Exception: no such page\n",
		"group":          "prices: [4 6 3]\n0 4 <nil>\n1 0 Exception: we have no salt\nall we have costs 4\n",
		"chord":          "votes: 1400\nfailed: Exception: a district without a name\n",
		"map-and-chunks": "map [1 4 9]\nstarmap [11 22]\nchunks [[11 22] [33]]\n",
		"beat":           "the fern was watered twice, for moments a second apart: true\nthe workflow noted 7\n",
		"schedule-file": "report     29 Mar 01:00 shop.report()\n" +
			"poll       28 Mar 12:00 shop.poll('eu')\n" +
			"inventory  29 Mar 06:00 shop.count()\n" +
			"lights     28 Mar 17:33 shop.light()\n" +
			"closing    31 Dec 19:00 shop.balance() | shop.send('accounts@example.org')\n",
		"replace":         "IT WAS LATE | NOBODY CAME\n",
		"error-callbacks": "alert: Exception: the disk is full\n",
		"revoke":          "the mail of in an hour is revoked: true\nrender was told to end: true\nthe rendering is revoked: true\n",
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
