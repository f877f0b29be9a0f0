//go:build unix

package interop

import (
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler/redbeat"
)

// TestBeatFeedsWorkers: entries that Gelery's beat sends run on Python's workers, the oldest and the newest, and on Go's.
func TestBeatFeedsWorkers(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"5.2", "5.6"} {
		for _, stack := range []Stack{RedisStack, RabbitMQStack} {
			t.Run("celery-"+name+" "+stack.String(), func(t *testing.T) {
				t.Parallel()
				v, s, url := FindVersion(t, name), stack.Open(t), testservice.Redis(t)
				store := openRedBeat(t, redbeat.Config{URL: url})
				workers := map[string]func(s Settings) *Process{
					"py": func(s Settings) *Process { return v.StartWorker(t, s, "solo", 1) },
					"go": func(s Settings) *Process { return StartGelery(t, s) },
				}
				running := map[string]*Process{}
				tasks := map[string]string{"py": "py.add", "go": "dev.add"}
				for queue, start := range workers {
					s.Queue = queue
					running[queue] = start(s)
					putEntry(t, store, queue, map[string]any{"task": tasks[queue], "schedule": int64(1), "args": []any{int64(2), int64(3)}, "options": map[string]any{"queue": queue}})
				}
				beat := startBeat(t, beatProgram{Store: url, Broker: s.Broker})
				for _, w := range running {
					w.WaitFor(t, `Task (py|dev)\.add\[[-0-9a-f]+\] succeeded in .*: 5`, time.Minute)
				}
				beat.Stop(t, 30*time.Second)
			})
		}
	}
}
