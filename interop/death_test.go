package interop

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
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
		results = append(results, send(t, client, "py.sleep", []any{longIf(i == 0)}))
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
		results = append(results, send(t, client, "dev.sleep", []any{longIf(i < 2)}))
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
// bodies of reliability.md 3.6. Each is set aside byte for byte and with a reason, whoever waits for it is told, and the
// good tasks between them run.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	s := Settings{Broker: url, Backend: database(url, 1), Queue: goQueue}
	StartGelery(t, s)
	client := dial(t, s, 2)
	rdb := redisClient(t, url)
	const rounds = 20
	injected := map[string]int{}
	var ids []string
	for round := range rounds {
		for i, h := range hostileMessages(round) {
			if err := rdb.LPush(t.Context(), goQueue, h.raw).Err(); err != nil {
				t.Fatal(err)
			}
			injected[h.raw]++
			if h.id != "" {
				ids = append(ids, h.id)
			}
			if i%5 == 0 {
				wantResult(t, client, "dev.add", []any{i, 1}, int64(i+1))
			}
		}
	}
	total := rounds * len(hostileMessages(0))
	eventually(t, "all are in quarantine", func() bool {
		return rdb.LLen(t.Context(), "_gelery.quarantine."+goQueue).Val() == int64(total)
	})
	wantResult(t, client, "dev.add", []any{2, 3}, int64(5))
	eventually(t, "nothing is held any more", func() bool {
		return rdb.HLen(t.Context(), "unacked").Val() == 0 && rdb.ZCard(t.Context(), "unacked_index").Val() == 0
	})
	for raw, reason := range quarantined(t, s, total) {
		if injected[raw]--; injected[raw] < 0 {
			t.Errorf("in quarantine and never sent: %.100q", raw)
		}
		if reason == "" {
			t.Errorf("no reason: %.100q", raw)
		}
	}
	for raw, missing := range injected {
		if missing > 0 {
			t.Errorf("%d times not in quarantine: %.300q", missing, raw)
		}
	}
	for _, id := range ids {
		if state, err := client.Result(id).State(within(t)); err != nil || state != protocol.Failure {
			t.Errorf("%s has state %s, %v; expected %s", id, state, err, protocol.Failure)
		}
	}
}

// quarantined yields what the command shows of the quarantine, bytes and reason.
func quarantined(t testing.TB, s Settings, limit int) iter.Seq2[string, string] {
	t.Helper()
	var shown []struct{ Queue, Reason, Text, Base64 string }
	out := gelery(t, s, "queues", "--quarantine", s.Queue, "--limit", strconv.Itoa(limit+1), "-o", "json")
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		t.Fatal(err)
	}
	return func(yield func(string, string) bool) {
		for _, m := range shown {
			raw, err := base64.StdEncoding.DecodeString(m.Base64)
			if err != nil || m.Queue != s.Queue {
				t.Errorf("the command shows %+v: %v", m, err)
			}
			if !yield(m.Text+string(raw), m.Reason) {
				return
			}
		}
	}
}

// hostile is a message that is malformed in a way known to kill a Python worker, or to be lost by one.
type hostile struct {
	raw string
	id  string // of the task, where one can be read and somebody may wait for it
}

func hostileMessages(round int) []hostile {
	var all []hostile
	envelope := func(headers, body, encoding string) string {
		return fmt.Sprintf(`{"body": %q, "content-type": "application/json", "content-encoding": "utf-8", "headers": %s, `+
			`"properties": {"delivery_tag": "t%d", "body_encoding": %q, "delivery_info": {"exchange": "", "routing_key": "%s"}, "priority": 0}}`,
			body, headers, round, encoding, goQueue)
	}
	const triple, plain = `[[1, 2], {}, null]`, "utf-8"
	for _, raw := range []string{
		"not json", "\x00\xff\x1b[2J", "", "[1]", `"text"`, "5", `{}`, `{"properties": null}`, `{"properties": {}}`,
		`{"properties": {"delivery_tag": "t"}}`, `{"properties": {"delivery_tag": "t", "delivery_info": {}}}`,
		`{"properties": {"delivery_tag": "t", "delivery_info": {"exchange": ""}}}`,
		`{"headers": null, "properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
		`{"body": "x", "properties": {"body_encoding": "hex", "delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
		envelope(`{}`, triple, plain), envelope(`{"task": "dev.add"}`, triple, plain), envelope(`{"task": "dev.add", "id": 5}`, triple, plain),
	} {
		all = append(all, hostile{raw: raw})
	}
	for _, m := range []struct{ task, rest, body, encoding string }{
		{`5`, ``, triple, plain}, {`"no.such.task"`, ``, triple, plain},
		{`"dev.add"`, `, "eta": ""`, triple, plain}, {`"dev.add"`, `, "expires": 5`, triple, plain},
		{`"dev.add"`, `, "timelimit": [1]`, triple, plain}, {`"dev.add"`, `, "timelimit": "abc"`, triple, plain},
		{`"dev.add"`, `, "retries": "x"`, triple, plain}, {`"dev.add"`, `, "compression": "application/x-gzip"`, triple, plain},
		{`"dev.add"`, ``, `123`, plain}, {`"dev.add"`, ``, `null`, plain}, {`"dev.add"`, ``, ``, plain},
		{`"dev.add"`, ``, `[[], {}]`, plain}, {`"dev.add"`, ``, `[[], null, null]`, plain}, {`"dev.add"`, ``, `[null, {}, null]`, plain},
		{`"dev.add"`, ``, `[[`, plain}, {`"dev.add"`, ``, strings.Repeat("[", 100_000), plain},
		{`"dev.add"`, ``, triple, "hex"}, {`"dev.add"`, ``, triple, "base64"},
	} {
		id := fmt.Sprintf("hostile-%d-%d", round, len(all))
		headers := fmt.Sprintf(`{"task": %s, "id": %q%s}`, m.task, id, m.rest)
		all = append(all, hostile{envelope(headers, m.body, m.encoding), id})
	}
	return all
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

// longIf is how many seconds a task sleeps: it outlasts the test, or not at all.
func longIf(long bool) int {
	if long {
		return 600
	}
	return 0
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
