package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// TestChildrenAreReplaced: a child process is replaced after so many tasks, and after the task that has left it too large.
func TestChildrenAreReplaced(t *testing.T) {
	t.Parallel()
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RedisStack}
	python, golang := c.both(t, nil, shape{pool: "prefork", concurrency: 1,
		args: []string{"--max-tasks-per-child", "3", "--max-memory-per-child", "204800"}}) // 200 MiB, of which Python needs fifty at its start
	f := &fates{Crossing: c.To(PythonToGo), python: python, golang: golang, driver: c.StartDriver(t, python.Settings)}
	f.cell(t, "children are replaced", "1 1 1 2 2 3 3 3 4", func(t *testing.T, w *side, d *Driver) string {
		places := map[string]int{}
		text := ""
		for _, mebibytes := range []int{0, 0, 0, 0, 200, 0, 0, 0, 0} {
			sent := d.Do(t, Command{Op: "send", Task: "exec.pid", Args: []any{mebibytes}, Options: map[string]any{"queue": w.queue}})
			if !sent.OK {
				t.Fatal(sent.Error)
			}
			pid := w.fate(t, sent.ID)
			if places[pid] == 0 {
				places[pid] = len(places) + 1
			}
			text += fmt.Sprint(" ", places[pid])
		}
		return text[1:]
	})
}

// TestSignalsOfOperators: SIGUSR1 tells what the worker is at, and SIGHUP starts it again in the same process, once its tasks have ended.
func TestSignalsOfOperators(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack}, func(t *testing.T, c Crossing) {
		python, golang := c.both(t, nil, shape{pool: "threads", concurrency: 1})
		f := &fates{Crossing: c.To(PythonToGo), python: python, golang: golang}
		signal := func(t *testing.T, w *side, sig syscall.Signal, python, golang string) {
			if err := w.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if w.golang {
				python = golang
			}
			w.WaitFor(t, python, patience)
		}
		f.cell(t, "USR1 and HUP", "SUCCESS done, SUCCESS done, 2 runs", func(t *testing.T, w *side, _ *Driver) string {
			g := newGate(t)
			running := send(t, w.client, "exec.waits", []any{string(g)})
			g.await(t, 1)
			signal(t, w, syscall.SIGUSR1, `, in wait\b`, `interop\.waits\(`)
			signal(t, w, syscall.SIGHUP, `Restarting celery worker`, `restart \(hangup\)`)
			next := send(t, w.client, "exec.waits", []any{string(g)})
			g.open(t)
			w.WaitNth(t, `\bready\.`, 2)
			return fmt.Sprintf("%s, %s, %d runs", w.fate(t, running.ID()), w.fate(t, next.ID()), len(g.runs(t)))
		})
	})
}

// TestStateFile: with --statedb what was revoked is revoked after a restart. The broker is RabbitMQ, which keeps nothing of it. A Go
// worker does not take a Python worker's file for its own.
func TestStateFile(t *testing.T) {
	t.Parallel()
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RabbitMQStack}
	s, server := c.open(t, nil)
	driver := c.StartDriver(t, s)
	file := filepath.Join(t.TempDir(), "state")
	for _, golang := range []bool{false, true} {
		direction := map[bool]string{false: GoToPython, true: PythonToGo}[golang]
		c.To(direction).Cell(t, "state file", func(t *testing.T) {
			k := shape{pool: "threads", concurrency: 1, args: []string{"--statedb", file + "-QUEUE"}}
			g, id := newGate(t), protocol.NewID()
			w := c.start(t, golang, s, server, k)
			w.ready(t)
			w.control(t, driver, "revoke", map[string]any{"task_id": id}, "revoked")
			if err := w.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := w.exitCode(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			w = c.start(t, golang, s, server, k)
			w.ready(t)
			send(t, w.client, "exec.waits", []any{string(g)}, task.ID(id))
			if got := w.discarded(t, g, id); got != "REVOKED celery.exceptions.TaskRevokedError('revoked'), 0 runs" {
				t.Error(got)
			}
		})
	}
	c.To(PythonToGo).Cell(t, "state file of a Python worker", func(t *testing.T) {
		found, err := filepath.Glob(file + "-" + pyQueue + "*") // a database of one file or of several
		if err != nil || len(found) == 0 {
			t.Fatalf("%v, %v", found, err)
		}
		before, err := os.ReadFile(found[0])
		if err != nil {
			t.Fatal(err)
		}
		w := c.start(t, true, s, server, shape{concurrency: 1, args: []string{"--statedb", found[0]}})
		if code := w.exitCode(t); code == 0 || !w.Output.Contains("is the state of a Python worker") {
			t.Errorf("exit code %d of a worker with a Python worker's state file", code)
		}
		if after, err := os.ReadFile(found[0]); err != nil || string(after) != string(before) {
			t.Errorf("the file has changed: %v", err)
		}
	})
}

// TestDeduplicationOnRabbitMQ: a message that the broker hands out again, of a task whose SUCCESS is stored, is acknowledged and not run.
func TestDeduplicationOnRabbitMQ(t *testing.T) {
	t.Parallel()
	c := Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: RabbitMQStack}
	python, golang := c.both(t, map[string]any{"worker_deduplicate_successful_tasks": true}, shape{pool: "threads", concurrency: 1})
	f := &fates{Crossing: c.To(PythonToGo), python: python, golang: golang, driver: c.StartDriver(t, python.Settings)}
	f.cell(t, "succeeded before", "SUCCESS done, 1 runs, 0 left", func(t *testing.T, w *side, d *Driver) string {
		g, id, queue := newGate(t), protocol.NewID(), "once-"+w.queue
		g.open(t)
		send(t, w.client, "exec.waits", []any{string(g)}, task.ID(id))
		w.fate(t, id)
		sent := d.Do(t, Command{Op: "send", Task: "exec.waits", Args: []any{string(g)}, ID: id, Options: map[string]any{"queue": queue}})
		if !sent.OK {
			t.Fatal(sent.Error)
		}
		w.handOut(t, queue)
		w.control(t, d, "add_consumer", map[string]any{"queue": queue}, "add consumer")
		eventually(t, "it is acknowledged", func() bool { ready, held := w.depth(t, queue); return ready+held == 0 })
		if w.golang {
			w.says(t, `Task exec\.waits\[`+id+`\] Task already completed successfully\.`)
		}
		ready, held := w.depth(t, queue)
		return fmt.Sprintf("%s, %d runs, %d left", w.fate(t, id), len(g.runs(t)), ready+held)
	})
}

// handOut takes a message of a queue and gives it back, so that it is marked as handed out before.
func (w *side) handOut(t *testing.T, queue string) {
	t.Helper()
	consumer, err := w.client.Transport().Consume(within(t), transport.ConsumeOptions{Queues: []transport.Queue{{Name: queue}}, Prefetch: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := consumer.Receive(within(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := consumer.Close(within(t)); err != nil {
		t.Fatal(err)
	}
}
