package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// command is the gelery program, built once for all tests of a process.
var command struct {
	once sync.Once
	dir  string
	err  error
}

// Gelery returns the path of the gelery program, built from this tree. [Cleanup] removes it.
func Gelery(t testing.TB) string {
	t.Helper()
	command.once.Do(func() {
		command.dir, command.err = os.MkdirTemp("", "gelery-interop-") //nolint:usetesting // outlives the test that asks first
		if command.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", command.dir, "./cmd/gelery")
		build.Dir = root(t)
		if said, err := build.CombinedOutput(); err != nil {
			command.err = fmt.Errorf("go build ./cmd/gelery: %w\n%s", err, said)
		}
	})
	if command.err != nil {
		t.Fatal(command.err)
	}
	return filepath.Join(command.dir, "gelery")
}

// Cleanup removes what Gelery built. TestMain calls it last.
func Cleanup() error {
	if command.dir == "" {
		return nil
	}
	return os.RemoveAll(command.dir)
}

// StartGelery starts a Go worker with the demo tasks on a queue and returns when it is ready. Args are added to its
// command line.
//
// The tests need of the demo: dev.add(x, y), dev.echo(*args, **kwargs) -> {"args": [...], "kwargs": {...}},
// dev.fail(message), and dev.progress(steps), which reports state PROGRESS with {"current", "total"} per step.
func StartGelery(t testing.TB, s Settings, args ...string) *Process {
	t.Helper()
	queue := s.Queue
	if queue == "" {
		queue = "celery"
	}
	cmd := exec.Command(Gelery(t), append([]string{
		"worker", "--demo", "-b", s.Broker, "--result-backend", s.Backend, "-Q", queue, "-c", "4", "-l", "INFO",
		"-n", "go" + strconv.Itoa(os.Getpid()) + "-" + queue + "@%h",
	}, args...)...)
	cmd.Env = withoutCelery(os.Environ())
	p := Start(t, "gelery-worker", cmd)
	p.WaitFor(t, `\bready\.`, time.Minute)
	return p
}
