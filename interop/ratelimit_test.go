package interop

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// TestRateLimit declares the same rate for a task of a Python worker and of a Go worker, sends each the same number of
// calls at once, and compares how they were spread.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		const rate, calls = 10, 8
		s := c.Open(t)
		s.Conf = map[string]any{"task_annotations": map[string]any{"py.when": map[string]any{"rate_limit": fmt.Sprint(rate, "/s")}}}
		driver := c.StartDriver(t, s)
		took := map[string]time.Duration{}
		c.To(PythonToGo).Cell(t, "rate limit", func(t *testing.T) {
			stop := runMux(t, task.Config{Broker: s.Broker, Backend: s.Backend}, limitedMux(fmt.Sprint(rate, "/s")), worker.Config{Concurrency: 2})
			took["go"] = driver.spread(t, "go.when", calls)
			stop()
		})
		c.To(GoToPython).Cell(t, "rate limit", func(t *testing.T) {
			w := c.StartWorker(t, s, "threads", 2)
			took["py"] = driver.spread(t, "py.when", calls)
			w.Kill()
		})
		t.Logf("%d calls at %d/s: %v", calls, rate, took)
		for side, d := range took {
			want := (calls - 1) * time.Second / rate
			if side == "py" {
				want -= time.Second / rate // a bucket that Celery has just made lets two run at once
			}
			if d < want*95/100 || d > want*2 { // late on a busy machine, but not early
				t.Errorf("%s spread %d calls over %v; expected %v", side, calls, d, want)
			}
		}
	})
}

// limitedMux has go.when with a rate limit, and go.add.
func limitedMux(rate string) *worker.Mux {
	mux := worker.NewMux()
	mux.Func("go.when", tellsWhen, task.RateLimit(rate))
	mux.Func("go.add", func(x, y int) (int, error) { return x + y, nil })
	return mux
}

// spread sends calls and tells how far apart the first run and the last one began.
func (d *Driver) spread(t *testing.T, name string, calls int) time.Duration {
	t.Helper()
	at := make([]float64, calls)
	for i, id := range d.sendSome(t, name, calls) {
		got := d.Do(t, Command{Op: "get", ID: id, Timeout: patience.Seconds()})
		var w when
		if err := json.Unmarshal(got.Value, &w); err != nil || !got.OK {
			t.Fatalf("%s %s: %v", got.State, got.Error, err)
		}
		at[i] = w.At
	}
	return time.Duration((slices.Max(at) - slices.Min(at)) * float64(time.Second))
}

func (d *Driver) sendSome(t *testing.T, name string, calls int) []string {
	t.Helper()
	ids := make([]string, calls)
	for i := range ids {
		sent := d.Do(t, Command{Op: "send", Task: name})
		if !sent.OK {
			t.Fatalf("%s: %s", sent.Kind, sent.Error)
		}
		ids[i] = sent.ID
	}
	return ids
}

// TestLimitedTasksHoldUpNobody: Python sends calls of a limited task, and behind them one of another. A Go worker runs that
// at once. A Python worker takes no more than its prefetch, of which the limited ones use up all.
func TestLimitedTasksHoldUpNobody(t *testing.T) {
	t.Parallel()
	ForEachCrossing(t, []Stack{RedisStack, RabbitMQRPCStack}, func(t *testing.T, c Crossing) {
		const calls = 10
		s := c.Open(t)
		s.Conf = map[string]any{"task_annotations": map[string]any{"py.when": map[string]any{"rate_limit": "1/h"}}}
		s.Prefetch = 1
		driver := c.StartDriver(t, s)
		c.To(PythonToGo).Cell(t, "others behind limited tasks", func(t *testing.T) {
			driver.sendSome(t, "go.when", calls)
			sent := driver.Do(t, Command{Op: "send", Task: "go.add", Args: []any{2, 3}})
			stop := runMux(t, task.Config{Broker: s.Broker, Backend: s.Backend}, limitedMux("1/h"), worker.Config{Concurrency: 2, PrefetchMultiplier: 1})
			if got := driver.Do(t, Command{Op: "get", ID: sent.ID, Timeout: patience.Seconds()}); !got.OK || got.Got != "5" {
				t.Errorf("%s %s %s", got.State, got.Got, got.Error)
			}
			stop()
		})
		if c.Version.Name != versions[len(versions)-1] {
			return // it takes its time, and is the same in all
		}
		c.To(GoToPython).Cell(t, "others behind limited tasks", func(t *testing.T) {
			s.Queue = pyQueue
			client := dial(t, s, 2)
			for range calls {
				if _, err := client.Send(within(t), "py.when", nil, nil); err != nil {
					t.Fatal(err)
				}
			}
			behind, err := client.Send(within(t), "py.add", []any{2, 3}, nil)
			if err != nil {
				t.Fatal(err)
			}
			w := c.StartWorker(t, s, "threads", 2)
			w.WaitFor(t, `py\.when\[.*succeeded`, patience)
			<-time.After(500 * time.Millisecond)
			if state, err := behind.State(within(t)); err != nil || state.Ready() {
				t.Errorf("a Python worker has run what is behind: %s, %v; then docs/differences.md is wrong", state, err)
			}
		})
	})
}
