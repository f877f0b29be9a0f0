package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestElection: Python workers beside a Go worker hold an election, and all of them go on. Who is elected depends on who is
// heard first; one whose clock is the lowest of all knows it in any case.
func TestElection(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		golang := s
		golang.Queue = goQueue
		workers := map[string]*Process{"go1@box": StartGelery(t, golang, "-n", "go1@box", "-l", "DEBUG")}
		s.Queue = pyQueue
		for _, node := range []string{"py1@box", "py2@box"} {
			workers[node] = Start(t, node, c.Command(t, s, "celery", "-A", "app", "worker", "-l", "debug", "-P", "threads", "-c", "1",
				"-Q", pyQueue, "-n", node, "--without-mingle"))
		}
		for node, w := range workers {
			w.WaitFor(t, `\bready\.`, time.Minute)
			for other := range workers {
				if other != node {
					w.WaitFor(t, other+` joined the party`, patience)
				}
			}
		}
		driver := c.StartDriver(t, s)
		monitor := c.startCapture(t, s)
		c.To(PythonToGo).Cell(t, "election", func(t *testing.T) {
			ledger := filepath.Join(t.TempDir(), "ledger")
			action := map[string]any{"task": "py.touch", "args": []string{ledger}, "kwargs": map[string]any{}, "options": map[string]any{"queue": pyQueue}}
			elect := func(nodes ...string) {
				driver.Do(t, Command{Op: "control", Task: "election", Kwargs: map[string]any{"id": "one", "topic": "task", "action": action},
					Options: map[string]any{"destination": nodes}})
			}
			elect("go1@box")
			// A Python worker that stands ends with an IndexError if enough answers come before its own candidacy comes back to it,
			// so those to the first candidate must be behind it. It takes in an event in each turn in which it answers a ping.
			eventually(t, "all have answered the Go worker", func() bool {
				return len(monitor.of("go1@box", "worker-elect-ack"))*len(monitor.of("py1@box", "worker-elect-ack"))*len(monitor.of("py2@box", "worker-elect-ack")) > 0
			})
			for range 10 {
				ping(t, driver, "py1@box")
				ping(t, driver, "py2@box")
			}
			elect("py1@box", "py2@box")
			for _, w := range workers {
				w.WaitFor(t, `I won the election 'one'|node \S+ elected for '?one`, patience)
			}
			eventually(t, "the task has run", func() bool {
				text, err := os.ReadFile(ledger)
				return err == nil && strings.Count(string(text), "\n") > 0
			})
			for node := range workers {
				ping(t, driver, node)
			}
			wantResult(t, dial(t, s, 2), "py.add", []any{2, 3}, int64(5))
		})
	})
}

func ping(t *testing.T, d *Driver, node string) {
	t.Helper()
	a := d.Do(t, Command{Op: "control", Task: "ping", Timeout: 30, Options: map[string]any{"destination": []string{node}}})
	if !strings.Contains(string(a.Value), "pong") {
		t.Errorf("%s answers %s %s", node, a.Value, a.Error)
	}
}

// answers waits until a worker hears remote control. Over Redis a Python worker may say that it is ready before it does.
func answers(t *testing.T, d *Driver, node string) {
	t.Helper()
	eventually(t, node+" answers", func() bool {
		a := d.Do(t, Command{Op: "control", Task: "ping", Timeout: 1, Options: map[string]any{"destination": []string{node}}})
		return strings.Contains(string(a.Value), "pong")
	})
}
