package flower

import (
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// workers is the page of all workers, which renews itself.
func (c *cluster) workers(t *testing.T) {
	c.opens(t, "/workers", "#workers-table", goWorker, pyWorker)
	c.sees(t, "#workers-online", "2")
	c.ends(t, c.send(t, "dev.add", []any{2, 3}), protocol.Success)
	c.ends(t, c.send(t, "dev.fail", []any{"kaput"}), protocol.Failure)
	c.ends(t, c.send(t, "py.add", []any{2, 3}, task.Queue(pyQueue)), protocol.Success)
	c.sees(t, "#workers-succeeded", "2")
	c.sees(t, "#workers-failed", "1")
	c.shoot(t, "workers")
}

// workerTabs are the tabs of the page of the Go worker.
func (c *cluster) workerTabs(t *testing.T) {
	// Flower shows what it has been answered in time.
	c.opens(t, workerPath(goWorker), "body", goWorker, "Max concurrency", "Transport", "Cancel Consumer", "dev.add", "broker_url", "utime", "uptime")
	for _, tab := range []struct {
		name string
		says []string
	}{
		{"pool", []string{"Max concurrency", "4", "Worker PID", "Prefetch Count"}},
		{"broker", []string{"Hostname", "127.0.0.1", "Transport"}},
		{"queues", []string{goQueue, "Cancel Consumer"}},
		{"tasks", []string{"dev.add", "dev.fail", "Active tasks", "Revoked tasks"}},
		{"limits", []string{"dev.add", "dev.echo", "dev.fail", "dev.progress", "dev.sleep"}},
		{"config", []string{"broker_url", "task_track_started", "worker_concurrency"}},
		{"system", []string{"utime", "stime", "maxrss"}},
		{"other", []string{"uptime"}},
	} {
		c.click(t, "#worker-tab-"+tab.name)
		c.sees(t, "#tab-"+tab.name+".active", tab.says...)
		c.shoot(t, "worker-"+tab.name)
	}
}

// tasks are the list of tasks and the pages of some of them.
func (c *cluster) tasks(t *testing.T) {
	failed := c.send(t, "dev.fail", []any{"kaput <b>"})
	c.ends(t, failed, protocol.Failure)
	done := c.send(t, "dev.add", []any{20, 22})
	c.ends(t, done, protocol.Success)
	c.opens(t, "/tasks", "#tasks-table", done.ID(), failed.ID(), "dev.add", "dev.fail", "py.add", goWorker, pyWorker, "(20, 22)", "42")
	c.shoot(t, "tasks")
	c.click(t, `button[data-task-state="FAILURE"]`)
	c.sees(t, "#tasks-table_info", "Showing 1 to 2 of 2 tasks")
	c.shoot(t, "tasks-failed")
	c.click(t, `#tasks-table a[href="/task/`+failed.ID()+`"]`)
	c.sees(t, "#task-page", "dev.fail", failed.ID(), "FAILURE", "('kaput <b>',)", "ValueError('kaput <b>')", "Traceback", goWorker)
	c.shoot(t, "task-failed")
	c.open(t, "/task/"+done.ID())
	c.sees(t, "#task-page", "dev.add", done.ID(), "SUCCESS", "(20, 22)", "42", goWorker, "Received", "Started", "Succeeded", "Runtime")
	c.shoot(t, "task-succeeded")
}

// brokerPage are the lengths of the queues, for which Flower asks RabbitMQ's management plugin alone.
func (c *cluster) brokerPage(t *testing.T) {
	if c.broker != "redis" {
		return
	}
	c.opens(t, "/broker", "table", goQueue)
	c.shoot(t, "broker")
}

// answered waits for Flower's word of an action.
func (c *cluster) answered(t *testing.T, text string) {
	t.Helper()
	c.sees(t, "#toast-container .toast-body", text)
}

// poolButtons change the number of slots.
func (c *cluster) poolButtons(t *testing.T) {
	for _, step := range []struct{ button, size, answer, want string }{
		{"grow", "3", "Growing", "7"},
		{"shrink", "2", "Shrinking", "5"},
	} {
		c.open(t, workerPath(goWorker))
		c.enter(t, "#pool-size", step.size)
		c.click(t, "#worker-pool-"+step.button)
		c.answered(t, step.answer)
		c.shoot(t, "pool-"+step.button)
		c.opens(t, workerPath(goWorker), "#tab-pool", "Max concurrency "+step.want)
	}
}

// consumerButtons add a queue and take it away again.
func (c *cluster) consumerButtons(t *testing.T) {
	c.open(t, workerPath(goWorker))
	c.click(t, "#worker-tab-queues")
	c.enter(t, "#add-consumer-name", "more")
	c.click(t, "#worker-add-consumer")
	c.answered(t, "add consumer more")
	c.shoot(t, "consumer-added")
	c.ends(t, c.send(t, "dev.add", []any{1, 2}, task.Queue("more")), protocol.Success)
	c.opens(t, workerPath(goWorker)+"#tab-queues", "#worker-queues", "more")
	c.click(t, "#worker-cancel-consumer-more")
	c.answered(t, "no longer consuming from more")
	c.shoot(t, "consumer-cancelled")
	c.unserved(t, "more")
}

// unserved waits until the worker's page does not show a queue any more.
func (c *cluster) unserved(t *testing.T, queue string) {
	t.Helper()
	path := workerPath(goWorker) + "#tab-queues"
	for end := time.Now().Add(patience); ; {
		c.opens(t, path, "#worker-queues", goQueue)
		if !strings.Contains(c.text("#worker-queues"), queue) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the worker still serves %s", queue)
		}
	}
}

// limitButtons limit a task's time and its rate. Flower does so for the tasks alone that its own application has.
func (c *cluster) limitButtons(t *testing.T) {
	press := func(value, button, answer string) {
		t.Helper()
		c.open(t, workerPath(goWorker)+"#tab-limits")
		c.enter(t, `input[aria-label="`+value+` for dev.sleep"]`, "1")
		c.click(t, `[id="task-`+button+`-dev.sleep"]`)
		c.answered(t, answer)
		c.shoot(t, button)
	}
	press("Timeout", "timeout-hard", "time limits set successfully")
	slow := c.send(t, "dev.sleep", []any{600})
	c.ends(t, slow, protocol.Failure)
	c.opens(t, "/task/"+slow.ID(), "#task-page", "FAILURE", "TimeLimitExceeded")
	c.shoot(t, "task-time-limit")
	press("Rate limit", "rate-limit", "new rate limit set successfully")
	c.opens(t, workerPath(goWorker)+"#tab-limits", "#limits-table", "dev.sleep [rate_limit=1")
}

// revokeButtons revoke a task that waits for its time and terminate one that runs.
func (c *cluster) revokeButtons(t *testing.T) {
	waits := c.send(t, "dev.add", []any{3, 4}, task.Countdown(time.Hour))
	c.opens(t, "/task/"+waits.ID(), "#task-page", "RECEIVED")
	c.shoot(t, "task-received")
	c.click(t, "#task-revoke")
	c.answered(t, "Revoked")
	c.shoot(t, "task-revoked")
	c.worker.WaitFor(t, "flagged as revoked: "+waits.ID(), patience) // its end is told of when its time has come

	runs := c.send(t, "dev.sleep", []any{600}, task.TimeLimit(10*time.Minute))
	c.opens(t, "/task/"+runs.ID(), "#task-page", "STARTED")
	c.click(t, "#task-terminate")
	c.answered(t, "Revoked")
	c.ends(t, runs, protocol.Revoked)
	c.opens(t, "/task/"+runs.ID(), "#task-page", "REVOKED")
	c.shoot(t, "task-terminated")
}

// shutdownButton ends the Go worker and leaves the other one.
func (c *cluster) shutdownButton(t *testing.T) {
	c.open(t, workerPath(goWorker))
	c.click(t, "#worker-group")
	c.click(t, "#worker-shutdown")
	c.answered(t, "Shutting down!")
	select {
	case <-c.worker.Exited():
	case <-time.After(patience):
		t.Fatal("the Go worker goes on")
	}
	if code := c.worker.Stop(t, time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	c.open(t, "/workers")
	c.sees(t, "#workers-online", "1")
	c.sees(t, `[id="`+goWorker+`"], .worker-offline`, goWorker, "Offline")
	c.shoot(t, "workers-one-offline")
}
