package interop

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
)

// TestDeaths kills a worker of either language while it holds messages, with only the other language left to notice.
func TestDeaths(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		t.Run(GoToPython, func(t *testing.T) {
			Cell(t, v, GoToPython, "Python worker dies, Go restores", func(t *testing.T) { pythonDies(t, v) })
		})
		t.Run(PythonToGo, func(t *testing.T) {
			Cell(t, v, PythonToGo, "Go worker dies, Python restores", func(t *testing.T) { goDies(t, v) })
		})
	})
}

// pythonDies: a Python worker holds tasks sent from Go and is killed. No Python process is left; a Go worker of another
// queue sweeps the database and puts them back, and the next Python worker runs them.
func pythonDies(t *testing.T, v Version) {
	url := testservice.Redis(t)
	s := Settings{Broker: url, Backend: database(url, 1), Queue: pyQueue, AckLate: true, Prefetch: 4}
	python := v.StartWorker(t, s, "prefork", 1)
	client := dial(t, s, 2)
	var results []*task.Result[any]
	for i := range 4 {
		results = append(results, send(t, client, "py.sleep", []any{map[bool]int{true: 600}[i == 0]}))
	}
	rdb := redisClient(t, url)
	eventually(t, "the Python worker holds all four", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 4 })
	python.Kill()
	StartGelery(t, Settings{Broker: url, Backend: s.Backend, Queue: goQueue}, "--transport-option", "visibility_timeout=1")
	eventually(t, "the Go worker has put them back", func() bool {
		return rdb.LLen(t.Context(), pyQueue).Val() == 4 && rdb.HLen(t.Context(), "unacked").Val() == 0
	})
	v.StartWorker(t, s, "threads", 4)
	for _, r := range results[1:] {
		if _, err := r.Get(within(t)); err != nil {
			t.Errorf("a task of the dead worker: %v", err)
		}
	}
}

// goDies: a Go worker holds tasks and is killed. No Go worker is left; a Python worker of another queue sweeps, and
// what comes next from the queue finds them there.
func goDies(t *testing.T, v Version) {
	url := testservice.Redis(t)
	s := Settings{Broker: url, Backend: database(url, 1), Queue: goQueue, Visibility: 2 * time.Second}
	gelery := StartGelery(t, s, "-c", "2")
	client := dial(t, s, 2)
	var results []*task.Result[any]
	for i := range 6 {
		results = append(results, send(t, client, "dev.sleep", []any{map[bool]int{true: 600}[i < 2]}))
	}
	rdb := redisClient(t, url)
	eventually(t, "the Go worker holds all six", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 6 })
	gelery.Kill()
	// Python sweeps when it starts, and then only every 100 seconds: it must start when the claims are old enough.
	eventually(t, "the claims are older than the visibility timeout", func() bool {
		limit := strconv.FormatFloat(float64(time.Now().UnixMilli())/1000-s.Visibility.Seconds()-0.5, 'f', 3, 64)
		return rdb.ZCount(t.Context(), "unacked_index", "-inf", limit).Val() == 6
	})
	python := s
	python.Queue = pyQueue
	v.StartWorker(t, python, "solo", 1)
	eventually(t, "the Python worker has put them back", func() bool {
		return rdb.LLen(t.Context(), goQueue).Val() == 6 && rdb.HLen(t.Context(), "unacked").Val() == 0
	})
	StartGelery(t, s, "-c", "6")
	for _, r := range results[2:] {
		if _, err := r.Get(within(t)); err != nil {
			t.Errorf("a task of the dead worker: %v", err)
		}
	}
}

// TestLeaseUnderPython holds tasks in a Go worker for several visibility timeouts of a Python worker on the same
// database: Python must not take them for dead.
func TestLeaseUnderPython(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		Cell(t, v, PythonToGo, "Go holds, Python sweeps", func(t *testing.T) {
			url := testservice.Redis(t)
			s := Settings{Broker: url, Backend: database(url, 1), Queue: goQueue, Visibility: 3 * time.Second}
			StartGelery(t, s)
			client := dial(t, s, 2)
			held := send(t, client, "dev.sleep", []any{9})
			rdb := redisClient(t, url)
			eventually(t, "the Go worker holds it", func() bool { return rdb.HLen(t.Context(), "unacked").Val() == 1 })
			python := s
			python.Queue = pyQueue
			for range 3 { // each start is a sweep
				v.StartWorker(t, python, "solo", 1).Stop(t, time.Minute)
			}
			if n := rdb.LLen(t.Context(), goQueue).Val(); n != 0 {
				t.Errorf("%d messages were put back while their worker lived", n)
			}
			if _, err := held.Get(within(t)); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestHostileMessages puts what kills Python workers in front of a Go worker on a real Redis: transports.md 1.3 and the
// bodies of reliability.md 3.6. Each is set aside, the good task behind it runs, the command shows them.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	s := Settings{Broker: url, Backend: database(url, 1), Queue: goQueue}
	StartGelery(t, s)
	client := dial(t, s, 2)
	rdb := redisClient(t, url)
	const times = 20
	for round := range times {
		for i, raw := range hostileEnvelopes(round) {
			if err := rdb.LPush(t.Context(), goQueue, raw).Err(); err != nil {
				t.Fatal(err)
			}
			if i%5 == 0 {
				wantResult(t, client, "dev.add", []any{i, 1}, int64(i+1))
			}
		}
	}
	want := int64(times * len(hostileEnvelopes(0)))
	eventually(t, "all are in quarantine", func() bool {
		return rdb.LLen(t.Context(), "_gelery.quarantine."+goQueue).Val() == want
	})
	wantResult(t, client, "dev.add", []any{2, 3}, int64(5))
	out := gelery(t, s, "queues", "--quarantine", goQueue, "--limit", "1000")
	for _, raw := range hostileEnvelopes(times - 1) {
		if text := strings.TrimSpace(raw); text != "" && !strings.Contains(out, headOf(text)) {
			t.Errorf("the command does not show %.60s", text)
		}
	}
}

// headOf is the head of a message, which the command surely shows.
func headOf(text string) string { return text[:min(len(text), 12)] }

// hostileEnvelopes are malformed in every way that is known to kill a Python worker, or to be lost by one.
func hostileEnvelopes(round int) []string {
	good := func(headers, body string) string {
		return fmt.Sprintf(`{"body": %q, "content-type": "application/json", "content-encoding": "utf-8", "headers": %s, `+
			`"properties": {"delivery_tag": "t%d", "delivery_info": {"exchange": "", "routing_key": "%s"}, "priority": 0}}`, body, headers, round, goQueue)
	}
	const triple = `[[1, 2], {}, null]`
	head := func(rest string) string { return `{"task": "dev.add", "id": "x"` + rest + `}` }
	return []string{
		"not json", "[1]", `"text"`, "5", `{}`, `{"properties": null}`, `{"properties": {}}`,
		`{"properties": {"delivery_tag": "t"}}`, `{"properties": {"delivery_tag": "t", "delivery_info": {}}}`,
		`{"properties": {"delivery_tag": "t", "delivery_info": {"exchange": ""}}}`,
		`{"headers": null, "properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
		`{"body": "x", "properties": {"body_encoding": "hex", "delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
		good(`{}`, triple), good(`{"task": "dev.add"}`, triple), good(`{"task": 5, "id": "x"}`, triple), good(`{"task": "dev.add", "id": 5}`, triple),
		good(head(`, "eta": ""`), triple), good(head(`, "expires": 5`), triple), good(head(`, "timelimit": [1]`), triple),
		good(head(`, "timelimit": "abc"`), triple), good(head(`, "retries": "x"`), triple),
		good(head(``), `123`), good(head(``), `null`), good(head(``), ``), good(head(``), `[[], {}]`), good(head(``), `[[], null, null]`),
		good(head(``), `[null, {}, null]`), good(head(``), `[[`), good(head(`, "compression": "application/x-gzip"`), triple),
		good(`{"task": "no.such.task", "id": "x"}`, triple), good(head(``), strings.Repeat("[", 100_000)),
	}
}

// gelery runs the command and returns its standard output.
func gelery(t testing.TB, s Settings, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(within(t), Gelery(t), append(args, "-b", s.Broker, "--result-backend", s.Backend)...)
	cmd.Env = withoutCelery(os.Environ())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gelery %v: %v", args, err)
	}
	return string(out)
}

func send(t testing.TB, client *task.Client, name string, args []any) *task.Result[any] {
	t.Helper()
	r, err := client.Send(within(t), name, args, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func redisClient(t testing.TB, url string) *goredis.Client {
	t.Helper()
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	rdb := goredis.NewClient(o)
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// eventually waits for a condition that nothing announces.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-limit.C:
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}
