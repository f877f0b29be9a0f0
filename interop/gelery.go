//go:build unix

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

// programs are what Build has built, each once for all tests of a process.
var programs struct {
	mu    sync.Mutex
	dir   string
	built map[string]error // by path
}

// Gelery returns the path of the gelery program, built from this tree. [Cleanup] removes it.
func Gelery(t testing.TB) string { return Build(t, "cmd/gelery") }

// Build builds the program in a folder of this tree and returns its path. [Cleanup] removes it.
func Build(t testing.TB, folder string) string {
	t.Helper()
	programs.mu.Lock()
	defer programs.mu.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "gelery-interop-") //nolint:usetesting // outlives the test that asks first
		if err != nil {
			t.Fatal(err)
		}
		programs.dir, programs.built = dir, map[string]error{}
	}
	path := filepath.Join(programs.dir, filepath.Base(folder))
	err, known := programs.built[path]
	if !known {
		build := exec.Command("go", "build", "-o", path, "./"+folder)
		build.Dir = root(t)
		if said, failed := build.CombinedOutput(); failed != nil {
			err = fmt.Errorf("go build ./%s: %w\n%s", folder, failed, said)
		}
		programs.built[path] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Cleanup removes what Build built. TestMain calls it last.
func Cleanup() error {
	if programs.dir == "" {
		return nil
	}
	return os.RemoveAll(programs.dir)
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
