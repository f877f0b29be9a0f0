package flower

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/interop"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

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

// refusedButtons are those that a worker refuses unless it was started for them. A Go worker does so in the words of a Python one.
func (c *cluster) refusedButtons(t *testing.T) {
	for _, node := range []string{pyWorker, goWorker} {
		c.open(t, workerPath(node))
		c.enter(t, "#min-autoscale", "2")
		c.enter(t, "#max-autoscale", "9")
		c.click(t, "#worker-pool-autoscale")
		c.answered(t, "Failed to autoscale '"+node+"' worker: ValueError('Autoscale not enabled')")
		c.shoot(t, "autoscale-refused-"+node)
		c.open(t, workerPath(node))
		c.pressAction(t, "pool-restart")
		c.answered(t, "Failed to restart the '"+node+"' pool: ValueError('Pool restarts not enabled')")
		c.shoot(t, "restart-refused-"+node)
	}
	c.opens(t, workerPath(goWorker), "#tab-pool", "Max concurrency 5") // as the buttons before have left it
}

// pressAction presses a button of the menu of a worker's page.
func (c *cluster) pressAction(t *testing.T, name string) {
	t.Helper()
	c.click(t, "#worker-group")
	c.click(t, "#worker-"+name)
}

// refreshButtons have Flower ask the workers anew.
func (c *cluster) refreshButtons(t *testing.T) {
	for button, answer := range map[string]string{"refresh": "Successfully refreshed", "refresh-all": "Refreshed All Workers"} {
		c.open(t, workerPath(goWorker))
		c.pressAction(t, button)
		c.answered(t, answer)
	}
}

// autoscaleButton changes the bounds of workers that have an autoscaler: as many tasks as it says run at once then.
func (c *cluster) autoscaleButton(t *testing.T) {
	const goScaled, pyScaled = "go2@box", "py2@box"
	s := c.settings
	s.Queue = "py-scaled"
	interop.FindVersion(t, "5.6").StartWorker(t, s, "prefork", 2, "-E", "-n", pyScaled, "--autoscale=3,1")
	s.Queue = "go-scaled"
	worker := interop.StartGelery(t, s, "-E", "-n", goScaled, "--track-started", "--autoscale", "3,1")
	for _, node := range []string{pyScaled, goScaled} {
		c.opens(t, workerPath(node), "#tab-pool", "Autoscaler options", "Max 3", "Min 1")
		c.enter(t, "#min-autoscale", "2")
		c.enter(t, "#max-autoscale", "6")
		c.click(t, "#worker-pool-autoscale")
		c.answered(t, "Autoscaling '"+node+"' worker (min=2, max=6)")
		c.shoot(t, "autoscale-"+node)
		c.opens(t, workerPath(node), "#tab-pool", "Max 6", "Min 2")
	}
	for range 6 {
		c.starts(t, c.send(t, "dev.sleep", []any{600}, task.Queue(s.Queue)))
	}
	c.opens(t, workerPath(goScaled)+"#tab-tasks", "#tab-tasks", "dev.sleep")
	c.shoot(t, "autoscaled-tasks")
	if err := worker.Signal(syscall.SIGQUIT); err != nil { // its tasks take ten minutes
		t.Fatal(err)
	}
	select {
	case <-worker.Exited():
	case <-time.After(patience):
		t.Fatal("the worker goes on")
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
	for _, limit := range []struct{ button, exception string }{{"timeout-soft", " SoftTimeLimitExceeded("}, {"timeout-hard", " TimeLimitExceeded("}} {
		press("Timeout", limit.button, "time limits set successfully")
		slow := c.send(t, "dev.sleep", []any{600})
		c.ends(t, slow, protocol.Failure)
		c.opens(t, "/task/"+slow.ID(), "#task-page", "FAILURE", limit.exception)
		c.shoot(t, "task-"+limit.button)
	}
	press("Rate limit", "rate-limit", "new rate limit set successfully")
	c.opens(t, workerPath(goWorker)+"#tab-limits", "#limits-table", "dev.sleep [rate_limit=1")
	var ended []time.Time // one at once, the others a second after the one before
	for range 4 {
		r := c.send(t, "dev.sleep", []any{0})
		c.ends(t, r, protocol.Success)
		ended = append(ended, c.done(t, r))
	}
	slices.SortFunc(ended, time.Time.Compare)
	if took := ended[3].Sub(ended[0]); took < 1500*time.Millisecond { // three seconds, but the first may have been late
		t.Errorf("four tasks end within %v at one a second", took)
	}
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
