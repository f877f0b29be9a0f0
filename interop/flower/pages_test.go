package flower

import (
	"testing"

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
