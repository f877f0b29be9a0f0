package interop

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/task"
)

// TestExporter has an unmodified celery-exporter watch a Go and a Python worker that do the same, and compares its counters of the
// one, of the other, and those that the Go worker has by itself.
func TestExporter(t *testing.T) {
	t.Parallel()
	monitoring := FindMonitoring(t)
	for _, stack := range []Stack{RedisStack, RabbitMQStack} {
		t.Run(stack.String(), func(t *testing.T) {
			t.Parallel()
			exports(t, monitoring, stack.Open(t))
		})
	}
}

func exports(t *testing.T, v Version, s Settings) {
	exporter, own := "http://"+freeAddress(t), freeAddress(t)
	_, port, _ := strings.Cut(exporter, "127.0.0.1:")
	watcher := Start(t, "celery-exporter", v.Command(t, s, "python", "-c", "from src.cli import cli; cli()", "--broker-url", s.Broker, "--host", "127.0.0.1", "--port", port))
	watcher.WaitFor(t, "Started celery-exporter", patience)
	s.Queue = pyQueue
	// Its threads lose events of each other, so it has processes.
	FindVersion(t, "5.6").StartWorker(t, s, "prefork", 2, "-E", "-n", "py@pybox", "--heartbeat-interval", "1")
	s.Queue = goQueue
	StartGelery(t, s, "-E", "-n", "go@gobox", "--health-addr", own, "--heartbeat-interval", "1")
	// What it does not hear it cannot count.
	awaitMetrics(t, exporter, map[string]float64{`celery_worker_up{hostname="gobox"}`: 1, `celery_worker_up{hostname="pybox"}`: 1})

	client := connect(t, task.Config{Broker: s.Broker, Backend: s.Backend, SendSentEvent: true})
	send := func(name, queue string, args ...any) {
		t.Helper()
		if _, err := client.Send(within(t), name, args, nil, task.Queue(queue)); err != nil {
			t.Fatal(err)
		}
	}
	const many, few = 50, 7
	for range many {
		send("dev.add", goQueue, 1, 2)
		send("py.add", pyQueue, 1, 2)
	}
	for range few {
		send("dev.fail", goQueue, "kaput")
		send("py.fail", pyQueue, "kaput")
	}
	counters := func(prefix, host string) map[string]float64 {
		of := func(counter, name string, labels ...string) string {
			return fmt.Sprintf(`celery_task_%s{%shostname="%s",name="%s.%s"}`, counter, strings.Join(labels, ""), host, prefix, name)
		}
		const n, m = many, few
		return map[string]float64{
			of("received_total", "add"): n, of("started_total", "add"): n, of("succeeded_total", "add"): n, of("revoked_total", "add"): 0,
			of("retried_total", "add"): 0, of("rejected_total", "add"): 0, of("runtime_count", "add"): n,
			of("received_total", "fail"): m, of("started_total", "fail"): m, of("succeeded_total", "fail"): 0,
			of("failed_total", "fail", `exception="ValueError",`): m, of("failed_total", "fail", `exception="",`): 0,
		}
	}
	ofGo, ofPython := counters("dev", "gobox"), counters("py", "pybox")
	awaitMetrics(t, exporter, ofGo)
	awaitMetrics(t, exporter, ofPython)
	ofGo[`celery_worker_up{hostname="gobox"}`] = 1
	ofGo[`celery_worker_tasks_active{hostname="gobox"}`] = 0
	ofGo[`celery_active_worker_count{queue_name="go"}`] = 1
	ofGo[`celery_active_process_count{queue_name="go"}`] = 1
	awaitMetrics(t, exporter, ofGo)
	awaitMetrics(t, "http://"+own, ofGo)
}

// freeAddress is one of the loopback interface that nobody listens at.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// awaitMetrics asks for metrics until they have all the samples: names with their labels in order, those of tasks without the queue.
func awaitMetrics(t *testing.T, address string, want map[string]float64) {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	var got map[string]float64
	for ctx := within(t); ; {
		seen, err := metricsOf(ctx, address)
		if err == nil {
			got = seen
		}
		missing := ""
		for name, value := range want {
			if v, there := got[name]; !there || v != value {
				missing += fmt.Sprintf("\n%s %v, is %v (%v)", name, value, v, there)
			}
		}
		if err == nil && missing == "" {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("the metrics of %s lack (%v)%s", address, err, missing)
		}
	}
}

var (
	sample     = regexp.MustCompile(`^(\w+)\{(.*)\} (\S+)$`)
	queueLabel = regexp.MustCompile(`,queue_name="[^"]*"`)
)

func metricsOf(ctx context.Context, address string) (map[string]float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	samples := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		if m := sample.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			name := m[1] + "{" + sortedLabels(m[2]) + "}"
			if strings.HasPrefix(name, "celery_task_") { // celery-exporter takes a task for one of the queue "celery" until it hears that it was sent
				name = queueLabel.ReplaceAllString(name, "")
			}
			v, err := strconv.ParseFloat(m[3], 64)
			if err != nil {
				return nil, err
			}
			samples[name] += v
		}
	}
	return samples, nil
}

// sortedLabels puts labels into the order of their names. No value here has a comma.
func sortedLabels(text string) string {
	labels := strings.Split(text, ",")
	slices.Sort(labels)
	return strings.Join(labels, ",")
}
