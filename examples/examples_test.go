// Package examples runs every example, so that none rots.
package examples

import (
	"context"
	"os/exec"
	"path/filepath"
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
