package interop

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
)

const (
	senderHost = "senderbox"
	// takes is how long each call of outcome.takes does at least: no runtime of it is in the histogram's buckets up to takesBucket.
	takes, takesBucket = 0.11, "0.1"
	// behind is how many tasks wait behind those that are terminated.
	behind = 3
)

// failsWith are the classes of the exceptions with which the tasks of the script fail.
var failsWith = map[string]string{"quiet": "ValueError", "fails": "ValueError", "expected": "KeyError", "arguments": "TypeError",
	"dead": "ValueError", "never": "KeyError", "unheard_of": "NotRegistered"}

// TestExporter has an unmodified celery-exporter watch a Go and a Python worker that run the same 1,000 tasks, and compares its
// counters of the one, of the other, and those that the Go worker has by itself, with what the tasks do: all of them, with all their
// labels. Runtimes are each worker's own: of these the counts are compared, and the bounds that the tasks set; but what celery-exporter makes of
// the Go worker's events is what the Go worker counts, bucket by bucket.
//
// The exporter takes a task for one of the queue "celery" until it hears that it was sent. So all is sent, and heard of, before a
// worker is told to consume it.
func TestExporter(t *testing.T) {
	t.Parallel()
	monitoring := FindMonitoring(t)
	for _, stack := range []Stack{RedisStack, RabbitMQStack} {
		t.Run(stack.String(), func(t *testing.T) {
			t.Parallel()
			exports(t, monitoring, Crossing{Version: FindVersion(t, versions[len(versions)-1]), Stack: stack})
		})
	}
}

func exports(t *testing.T, monitoring Version, c Crossing) {
	s, server := c.open(t, map[string]any{"task_send_sent_event": true})
	exporter, own := "http://"+freeAddress(t), freeAddress(t)
	_, port, _ := strings.Cut(exporter, "127.0.0.1:")
	Start(t, "celery-exporter", monitoring.Command(t, s, "python", "exporter.py", "--broker-url", s.Broker, "--host", "127.0.0.1", "--port", port)).
		WaitFor(t, "Started celery-exporter", patience)
	// Python's threads lose events of each other, so it has processes.
	python := c.startExported(t, false, s, server, "prefork")
	pool, processes := "threads", 1.0 // of Go, either kind over one of the brokers
	if c.Broker == "rabbitmq" {
		pool, processes = "prefork", 2
	}
	golang := c.startExported(t, true, s, server, pool, "--health-addr", own)
	sides := []*side{python, golang}
	for _, w := range sides {
		w.ready(t)
		w.client = connect(t, task.Config{Broker: s.Broker, Backend: s.Backend, Queue: w.queue, SendSentEvent: true, Origin: "test@" + senderHost})
	}
	// What it does not hear it cannot count.
	awaitMetrics(t, exporter, lacks(samples{`celery_worker_up{hostname="gobox"}`: 1, `celery_worker_up{hostname="pybox"}`: 1}))

	calls := repeat(append(c.script(), scripted{name: "takes", args: []any{takes}, events: "received started succeeded"}), 1000)
	for i := range calls {
		if calls[i].name == "returns later" { // also than the beginning of all this
			calls[i].opts = append(slices.Clone(calls[i].opts), task.Countdown(15*time.Second))
		}
	}
	driver := c.StartDriver(t, s)
	gates := map[*side]gate{}
	want := map[*side]samples{}
	for _, w := range sides {
		gates[w] = newGate(t)
		w.revoke(t, driver, calls)
		w.sendBusy(t, gates[w])
		w.sendCalls(t, calls)
		want[w] = w.counts(t, calls)
	}
	awaitMetrics(t, exporter, func(got samples) string {
		return differ(sent(got), union(sent(want[python].of("task", senderHost)), sent(want[golang].of("task", senderHost))))
	})
	for _, w := range sides {
		w.revokeBusy(t, driver, exporter, gates[w])
		w.control(t, driver, "add_consumer", map[string]any{"queue": w.queue}, "add consumer")
	}
	heard := awaitMetrics(t, exporter, func(got samples) string {
		return differ(got.of("task"), union(want[python], want[golang])) + runtimesLack(got)
	})
	for _, w := range sides {
		w.checkRuntimes(t, heard)
	}
	checkOwnMetrics(t, exporter, own, processes, want[golang], heard.of("task_runtime", `"`+golang.host()+`"`))
}

// startExported starts a worker that consumes nothing yet.
func (c Crossing) startExported(t *testing.T, golang bool, s Settings, server *testservice.RabbitMQServer, pool string, args ...string) *side {
	t.Helper()
	w := c.start(t, golang, s, server, shape{pool: pool, concurrency: 2, queues: "QUEUE-idle",
		args: append([]string{"-E", "-n", "QUEUE@QUEUEbox", "--heartbeat-interval", "1"}, args...)})
	w.node = w.queue + "@" + w.host()
	return w
}

// host is the label of the side's worker.
func (w *side) host() string { return w.queue + "box" }

// busy is the queue of what is revoked when the worker has it: tasks that run in all slots, and some that wait behind them.
func (w *side) busy() string { return w.queue + "-busy" }

func (w *side) busyID(i int) string { return w.busy() + strconv.Itoa(i) }

func (w *side) sendBusy(t *testing.T, g gate) {
	t.Helper()
	for i := range 2 + behind {
		name, arg := "outcome.returns", any(1)
		if i < 2 {
			name, arg = "exec.waits", string(g)
		}
		send(t, w.client, name, []any{arg}, task.ID(w.busyID(i)), task.Queue(w.busy()))
	}
}

// revokeBusy has the worker take what is in that queue, revokes what waits, and terminates what runs.
func (w *side) revokeBusy(t *testing.T, driver *Driver, exporter string, g gate) {
	t.Helper()
	w.control(t, driver, "add_consumer", map[string]any{"queue": w.busy()}, "add consumer")
	g.await(t, 2)
	count := func(what string) string {
		return fmt.Sprintf(`celery_task_%s_total{hostname="%s",name="outcome.returns",queue_name="%s"}`, what, w.host(), w.busy())
	}
	awaitMetrics(t, exporter, lacks(samples{count("received"): behind}))
	var ids []string
	for i := range 2 + behind {
		ids = append(ids, w.busyID(i))
	}
	w.control(t, driver, "revoke", map[string]any{"task_id": ids[2:]}, "revoked")
	w.control(t, driver, "revoke", map[string]any{"task_id": ids[:2], "terminate": true, "signal": "SIGTERM"}, "terminate")
	awaitMetrics(t, exporter, lacks(samples{count("revoked"): behind}))
}

// counts are the counters of what is sent to the side, as all calls together make them.
func (w *side) counts(t *testing.T, calls []scripted) samples {
	t.Helper()
	machine, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	all := samples{}
	add := func(family, name, queue, host, exception string) {
		if exception != "" {
			exception = `exception="` + exception + `",`
		}
		all[fmt.Sprintf(`celery_task_%s_total{%shostname="%s",name="%s",queue_name="%s"}`, family, exception, host, name, queue)]++
	}
	call := func(name, shown, queue, events string) {
		_, short, _ := strings.Cut(name, ".")
		add("sent", name, queue, senderHost, "")
		for _, family := range strings.Fields(events) {
			exception := ""
			if family == "failed" {
				exception = failsWith[short]
			}
			add(family, cmp.Or(shown, name), queue, w.host(), exception)
			if family == "retried" { // by the worker, which calls itself as any other sender of the machine
				add("sent", name, queue, machine, "")
			}
		}
	}
	for _, x := range calls {
		name, _, _ := strings.Cut(x.name, " ")
		call("outcome."+name, x.shown, w.queue, x.events)
	}
	for range 2 {
		call("exec.waits", "", w.busy(), "received started revoked")
	}
	for range behind {
		call("outcome.returns", "", w.busy(), "received revoked")
	}
	return all
}

// runtimesLack tells of which successes no runtime is counted.
func runtimesLack(all samples) string {
	counts, want := all.of("task_runtime_count"), samples{}
	for name, n := range all.of("task_succeeded") {
		want[strings.Replace(name, "succeeded_total", "runtime_count", 1)] = n
	}
	return differ(counts, want)
}

// checkRuntimes compares the runtimes of a side with what the tasks set: who takes some time has not taken less.
func (w *side) checkRuntimes(t *testing.T, all samples) {
	t.Helper()
	histograms := all.of("task_runtime_count", `"`+w.host()+`"`)
	if len(histograms) < 4 { // returns, quiet, retries, takes
		t.Errorf("%s has %d histograms of runtimes", w.host(), len(histograms))
	}
	for name, n := range histograms {
		labels := strings.TrimPrefix(name, "celery_task_runtime_count")
		bucket := func(le string) float64 {
			return all["celery_task_runtime_bucket"+strings.Replace(labels, ",name=", `,le="`+le+`",name=`, 1)]
		}
		if bucket("+Inf") != n {
			t.Errorf("the last bucket of %s has %v", name, bucket("+Inf"))
		}
		sum := all["celery_task_runtime_sum"+labels]
		if strings.Contains(name, `"outcome.takes"`) && (bucket(takesBucket) != 0 || sum < takes*n || sum > patience.Seconds()*n) {
			t.Errorf("%s has %v runtimes up to %s s, and %v s in all; each of %v takes %v s", name, bucket(takesBucket), takesBucket, sum, n, takes)
		}
	}
}

// checkOwnMetrics compares what the Go worker counts by itself with what it is to count, and its runtimes with those that
// celery-exporter has heard of it.
func checkOwnMetrics(t *testing.T, exporter, own string, processes float64, want, heard samples) {
	t.Helper()
	workers := samples{`celery_worker_up{hostname="gobox"}`: 1, `celery_worker_tasks_active{hostname="gobox"}`: 0}
	for _, queue := range []string{"go", "go-busy", "go-idle"} {
		workers[`celery_active_worker_count{queue_name="`+queue+`"}`] = 1
		workers[`celery_active_process_count{queue_name="`+queue+`"}`] = processes
	}
	awaitMetrics(t, exporter, lacks(workers))
	awaitMetrics(t, "http://"+own, lacks(workers))
	byItself := maps.Clone(want)
	maps.DeleteFunc(byItself, func(name string, _ float64) bool { return strings.Contains(name, `"`+senderHost+`"`) })
	counted := awaitMetrics(t, "http://"+own, func(got samples) string { return differ(got.of("task"), byItself) }).of("task_runtime")
	for name, v := range counted {
		if strings.HasPrefix(name, "celery_task_runtime_sum") && math.Abs(v-heard[name]) <= 1e-6*v { // they are added up in another order
			heard[name] = v
		}
	}
	if diff := differ(counted, heard); diff != "" {
		t.Errorf("runtimes by itself, and expected of what celery-exporter has heard:%s", diff)
	}
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

// samples are metrics by their names with their labels, in the order of these.
type samples map[string]float64

// of are those of a kind (worker, task; runtimes are a kind of their own) that contain all the words. What is 0 is as if it were not there.
func (s samples) of(kind string, words ...string) samples {
	some := samples{}
	for name, v := range s {
		of := strings.HasPrefix(name, "celery_"+kind+"_") || strings.HasPrefix(name, "celery_"+kind+"{")
		runtime := strings.HasPrefix(name, "celery_task_runtime_")
		lacksWord := slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(name, word) })
		if of && !lacksWord && v != 0 && runtime == strings.HasPrefix(kind, "task_runtime") {
			some[name] = v
		}
	}
	return some
}

func sent(s samples) samples { return s.of("task_sent") }

func union(a, b samples) samples {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

// differ tells where two differ: "" if they do not.
func differ(got, want samples) string {
	names := slices.Sorted(maps.Keys(union(got, want)))
	text := ""
	for _, name := range names {
		if got[name] != want[name] {
			text += fmt.Sprintf("\n%s is %v; expected %v", name, got[name], want[name])
		}
	}
	return text
}

// lacks tells which of the samples are not there.
func lacks(want samples) func(samples) string {
	return func(got samples) string {
		some := samples{}
		for name := range want {
			v, there := got[name]
			if !there {
				v = math.NaN()
			}
			some[name] = v
		}
		return differ(some, want)
	}
}

// awaitMetrics asks for metrics until the function has nothing to say of them. A busy machine may take long, but it gets on: so long
// as metrics of tasks change, there is hope.
func awaitMetrics(t *testing.T, address string, missing func(samples) string) samples {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	var last float64
	for end := time.Now().Add(patience); ; {
		got, err := metricsOf(t.Context(), address)
		why := fmt.Sprint(err)
		if err == nil {
			if why = missing(got); why == "" {
				return got
			}
			total := 0.0
			for _, v := range got.of("task") {
				total += v
			}
			if total != last {
				last, end = total, time.Now().Add(patience)
			}
		}
		if time.Now().After(end) {
			t.Fatalf("the metrics of %s: %s", address, why)
		}
		<-again.C
	}
}

var sample = regexp.MustCompile(`^(\w+)\{(.*)\} (\S+)$`)

func metricsOf(ctx context.Context, address string) (samples, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
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
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", answer.Status, text)
	}
	if err != nil {
		return nil, err
	}
	all := samples{}
	for line := range strings.Lines(string(text)) {
		m := sample.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil || strings.HasSuffix(m[1], "_created") { // when the exporter has first counted it
			continue
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			return nil, err
		}
		all[m[1]+"{"+sortedLabels(m[2])+"}"] += v
	}
	return all, nil
}

// sortedLabels puts labels into the order of their names. No value here has a comma.
func sortedLabels(text string) string {
	labels := strings.Split(text, ",")
	slices.SortFunc(labels, func(a, b string) int {
		nameOfA, _, _ := strings.Cut(a, "=")
		nameOfB, _, _ := strings.Cut(b, "=")
		return cmp.Compare(nameOfA, nameOfB)
	})
	return strings.Join(labels, ",")
}
