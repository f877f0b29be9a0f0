package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/internal/testservice"
)

func TestBench(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	c, err := redisconn.Parse(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := c.Client(redisconn.ClientOptions{})
	defer func() { _ = client.Close() }()
	for _, key := range []string{"celery", "unacked"} { // somebody else's
		if err := client.Set(t.Context(), "not-"+key, "1", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
	}

	var d benchDocument
	if err := json.Unmarshal([]byte(command(t, 0, "-b", url, "bench", "--tasks", "300", "-c", "3", "-o", "json")), &d); err != nil {
		t.Fatal(err)
	}
	switch {
	case d.Broker != url || d.Tasks != 300 || d.Concurrency != 3:
		t.Errorf("conditions: %+v", d)
	case d.Enqueue == nil || d.Drain == nil || d.Latency == nil || d.Memory == nil:
		t.Fatalf("a measure is missing: %+v", d)
	case d.Enqueue.Single <= 0 || d.Enqueue.Pipelined <= d.Enqueue.Single:
		t.Errorf("enqueue: %+v; expected batches to be faster", d.Enqueue)
	case d.Drain.Rate <= 0:
		t.Errorf("drain: %+v", d.Drain)
	case d.Latency.P50 <= 0 || d.Latency.P50 > d.Latency.P99 || d.Latency.P99 > d.Latency.Max:
		t.Errorf("latency: %+v", d.Latency)
	case d.Memory.Bytes < 100:
		t.Errorf("memory: %+v; a message alone has more bytes", d.Memory)
	}

	keys, err := client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		ttl := client.TTL(t.Context(), key).Val()
		if !strings.HasPrefix(key, "not-") && (ttl <= 0 || ttl > 2*time.Minute) {
			t.Errorf("%s is left behind, for %v", key, ttl)
		}
	}
}

func TestBenchChosenMeasures(t *testing.T) {
	t.Parallel()
	var d benchDocument
	out := command(t, 0, "bench", "-b", "memory://"+t.Name(), "--tasks", "50", "--only", "drain,memory", "-o", "json")
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatal(err)
	}
	if d.Drain == nil || d.Enqueue != nil || d.Latency != nil || d.Memory != nil {
		t.Errorf("got %s; expected drain alone, for a broker in memory has no memory to ask for", out)
	}
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--tasks", "9"}, {"-c", "0"}, {"--only", "drain,everything"}, {"extra"}} {
		if code, _, stderr := (run{args: append([]string{"bench"}, args...)}).do(t); code != 2 {
			t.Errorf("%v: exit code %d, %s; expected 2", args, code, stderr)
		}
	}
}

func TestBenchWithoutRedis(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	code, _, stderr := run{args: []string{"bench"}}.do(t)
	if code != 1 || strings.Count(stderr, "\n") != 3 || !strings.Contains(stderr, "--broker") {
		t.Errorf("exit code %d:\n%s\nexpected three lines that say what to do", code, stderr)
	}
}

func TestBenchRows(t *testing.T) {
	t.Parallel()
	d := benchDocument{Concurrency: 10, Enqueue: &benchEnqueue{12345.6, 98765.4}, Drain: &benchDrain{5000.4},
		Latency: &benchLatency{200, 1.234, 4.5, 6}, Memory: &benchMemory{1029.4}}
	var b bytes.Buffer
	if err := outputPlain.table(&b, nil, d.rows()); err != nil {
		t.Fatal(err)
	}
	want := "enqueue, one by one\t12346\ttasks/s\nenqueue, batches of 100\t98765\ttasks/s\ndrain, concurrency 10\t5000\ttasks/s\n" +
		"latency p50 at 200 tasks/s\t1.23\tms\nlatency p99 at 200 tasks/s\t4.50\tms\nlatency max at 200 tasks/s\t6.00\tms\n" +
		"broker memory\t1029\tbytes/task\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
