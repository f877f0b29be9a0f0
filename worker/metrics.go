package worker

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gelery/gelery/internal/exposition"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// metrics counts tasks for Prometheus, by the names of celery-exporter: where the events of tasks are made, whether they are
// sent or not. Nil, of a worker without a health address: it counts nothing.
type metrics struct {
	w *Worker

	mu     sync.Mutex
	series map[seriesKey]*series
	tasks  foreignNames // of tasks that are not the worker's
	queues foreignNames // of queues
}

// What a message says of itself must not make series without end: of names of tasks that the worker does not know, of names of
// queues, and of exceptions of one series, so many are told apart, and all others are one.
const (
	maxForeign    = 200 // of either kind: many names of tasks must not hide queues
	maxExceptions = 100
	otherName     = "other"
)

// seriesKey are the labels of a series, beside the host: the name is the one that events tell, which may be a shadow. Sent is of tasks
// that the worker itself has sent; what a child of a process pool has sent is counted when its run ends, and not if that ends with the
// child.
type seriesKey struct {
	name, queue string
	sent        bool
}

// series is what is counted of a task from a queue. Its fields belong to metrics.mu.
type series struct {
	kinds     [countedKinds]uint64
	failed    map[string]uint64 // by the class of the exception
	runtimes  []uint64          // of successes, by runtimeBounds
	totalTime float64           // seconds
}

// counted is what is counted once an outcome is stored.
type counted uint8

const (
	countedNothing counted = iota
	countedSent
	countedReceived
	countedStarted
	countedSucceeded
	countedRejected
	countedRevoked
	countedRetried
	countedFailed
	countedKinds
)

// counters are the families of counters that have no label of their own.
var counters = []struct {
	kind        counted
	suffix, say string
}{
	{countedSent, "sent", "Sent when a task message is published."},
	{countedReceived, "received", "Sent when the worker receives a task."},
	{countedStarted, "started", "Sent just before the worker executes the task."},
	{countedSucceeded, "succeeded", "Sent if the task executed successfully."},
	{countedRejected, "rejected", "The task was rejected by the worker, possibly to be re-queued or moved to a dead letter queue."},
	{countedRevoked, "revoked", "Sent if the task has been revoked."},
	{countedRetried, "retried", "Sent if the task failed, but will be retried in the future."},
}

// runtimeBounds are those of the Python client's histograms, in seconds.
var runtimeBounds = []float64{.005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}

// countedAs is what an outcome counts as.
type countedAs struct {
	kind      counted
	rejected  bool   // beside that
	exception string // of a failure: its class
	runtime   time.Duration
}

// newMetrics makes the metrics of a worker that is asked for them.
func newMetrics(w *Worker) *metrics {
	if w.config.HealthAddr == "" && w.config.Health == nil {
		return nil
	}
	return &metrics{w: w, series: map[seriesKey]*series{}, tasks: foreignNames{}, queues: foreignNames{}}
}

// begin counts what the client sends until stop is called.
func (m *metrics) begin() (stop func()) {
	if m == nil {
		return func() {}
	}
	return m.w.client.OnSent(func(task, queue string) { m.sent(task, queue, 1) })
}

// sent counts calls that the broker has.
func (m *metrics) sent(task, queue string, n uint64) {
	if m != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.of(seriesKey{task, queue, true}).kinds[countedSent] += n
	}
}

// takeSent takes out what was sent since the last time: in a child, whose parent counts it.
func (m *metrics) takeSent() map[seriesKey]uint64 {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.series) == 0 {
		return nil
	}
	all := make(map[seriesKey]uint64, len(m.series))
	for key, s := range m.series {
		all[key] = s.kinds[countedSent]
	}
	clear(m.series)
	return all
}

// received counts a task that has come, once also if the broker has kept it until its time.
func (m *metrics) received(j *job) {
	if m != nil && !m.w.events.received.before(j.request) {
		m.count(shownName(j.request), j.delivery.Queue, countedAs{kind: countedReceived})
	}
}

// started counts a run that begins.
func (m *metrics) started(j *job) {
	if m != nil {
		m.count(shownName(j.request), j.delivery.Queue, countedAs{kind: countedStarted})
	}
}

// stored counts outcomes that are stored, each once.
func (m *metrics) stored(batch []*outcome) {
	if m == nil {
		return
	}
	for _, o := range batch {
		if o.counts.kind == countedNothing || o.request == nil {
			continue
		}
		if doc := o.meta; doc != nil && doc.Status == protocol.Failure && o.counts.kind == countedSucceeded { // it could not be stored as it was
			o.counts = failureCount(doc.Exception)
		}
		m.count(shownName(o.request), o.delivery.Queue, o.counts)
		o.counts = countedAs{}
	}
}

// ofRun is what the outcome of a run counts as.
func (m *metrics) ofRun(o *outcome, c *completion) countedAs {
	if m == nil {
		return countedAs{}
	}
	switch c.state {
	case protocol.Success:
		return countedAs{kind: countedSucceeded, runtime: c.runtime}
	case protocol.Retry:
		return countedAs{kind: countedRetried}
	case protocol.Failure:
		t := failureCount(c.exception)
		t.rejected = o.verdict == transport.Reject && !o.settled
		return t
	case protocol.Rejected:
		if !o.settled {
			return countedAs{kind: countedRejected}
		}
	case protocol.Revoked:
		return countedAs{kind: countedRevoked}
	}
	return countedAs{}
}

// failureCount is what a task counts as that has failed.
func failureCount(x *protocol.Exception) countedAs {
	return countedAs{kind: countedFailed, exception: exceptionClass(x)}
}

// exceptionClass is what celery-exporter makes of an exception's repr: the word before the first parenthesis.
func exceptionClass(x *protocol.Exception) string {
	class, _, found := strings.Cut(exceptionRepr(x, value.Secrets{}), "(")
	if !found || class == "" || strings.ContainsFunc(class, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && r < 0x80
	}) {
		return "UnknownException"
	}
	return class
}

// of is the series of a key, or the one that stands for it. The caller holds mu.
func (m *metrics) of(key seriesKey) *series {
	s := m.series[key]
	if s == nil {
		key = m.bounded(key)
		if s = m.series[key]; s == nil {
			s = &series{failed: map[string]uint64{}}
			m.series[key] = s
		}
	}
	return s
}

// count counts.
func (m *metrics) count(name, queue string, t countedAs) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.of(seriesKey{name: name, queue: queue})
	if t.rejected {
		s.kinds[countedRejected]++
	}
	s.kinds[t.kind]++
	switch t.kind {
	case countedFailed:
		if _, known := s.failed[t.exception]; !known && len(s.failed) >= maxExceptions {
			t.exception = otherName
		}
		s.failed[t.exception]++
	case countedSucceeded:
		if s.runtimes == nil {
			s.runtimes = make([]uint64, len(runtimeBounds)+1)
		}
		i, _ := slices.BinarySearch(runtimeBounds, t.runtime.Seconds())
		s.runtimes[i]++
		s.totalTime += t.runtime.Seconds()
	}
}

// bounded is a key that has no series yet, with names that are not the worker's replaced once there are too many of them. The
// caller holds mu.
func (m *metrics) bounded(key seriesKey) seriesKey {
	if m.w.tasks[key.name] == nil {
		key.name = m.tasks.bounded(key.name)
	}
	key.queue = m.queues.bounded(key.queue)
	return key
}

// foreignNames are names that messages have brought.
type foreignNames map[string]struct{}

// bounded is the name, or the one for all others where there is no more room for it.
func (f foreignNames) bounded(name string) string {
	if _, known := f[name]; known {
		return name
	}
	if len(f) >= maxForeign {
		return otherName
	}
	f[name] = struct{}{}
	return name
}

// text is all metrics, in Prometheus's text format.
func (m *metrics) text() []byte {
	host, sender := hostOf(m.w.config.Hostname), hostOf(m.w.client.Config().Origin)
	var t exposition.Text
	m.writeTasks(&t, host, sender)
	hostname := exposition.Label{Name: "hostname", Value: host}
	t.Family("celery_worker_up", "gauge", "Indicates if a worker has recently sent a heartbeat.")
	t.Sample(1, hostname)
	t.Family("celery_worker_tasks_active", "gauge", "The number of tasks the worker is currently processing")
	t.Sample(float64(len(m.w.active.undecided())), hostname)
	queues := m.w.consumed()
	for _, g := range []struct {
		name, say string
		value     int
	}{
		{"celery_active_worker_count", "The number of active workers in broker queue.", 1},
		{"celery_active_process_count", "The number of active processes in broker queue.", len(m.w.pool.pids())},
	} {
		t.Family(g.name, "gauge", g.say)
		for _, q := range queues {
			t.Sample(float64(g.value), exposition.Label{Name: "queue_name", Value: q.Name})
		}
	}
	return t.Bytes()
}

// hostOf is the host in a node name.
func hostOf(name string) string {
	_, host, _ := strings.Cut(name, "@")
	return host
}

// writeTasks writes the families of tasks. As from celery-exporter, a task that was received has a sample of every counter.
func (m *metrics) writeTasks(t *exposition.Text, host, sender string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := slices.SortedFunc(maps.Keys(m.series), func(a, b seriesKey) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.queue, b.queue))
	})
	labels := func(k seriesKey) []exposition.Label {
		host := host
		if k.sent {
			host = sender
		}
		return []exposition.Label{{Name: "name", Value: k.name}, {Name: "hostname", Value: host}, {Name: "queue_name", Value: k.queue}}
	}
	for _, c := range counters {
		t.Family("celery_task_"+c.suffix+"_total", "counter", c.say)
		for _, k := range keys {
			if k.sent == (c.kind == countedSent) {
				t.Sample(float64(m.series[k].kinds[c.kind]), labels(k)...)
			}
		}
	}
	t.Family("celery_task_failed_total", "counter", "Sent if the execution of the task failed.")
	for _, k := range keys {
		if k.sent {
			continue
		}
		l := labels(k)
		with := func(class string) []exposition.Label {
			return []exposition.Label{l[0], l[1], {Name: "exception", Value: class}, l[2]}
		}
		t.Sample(0, with("")...)
		failed := m.series[k].failed
		for _, class := range slices.Sorted(maps.Keys(failed)) {
			t.Sample(float64(failed[class]), with(class)...)
		}
	}
	t.Family("celery_task_runtime", "histogram", "Histogram of task runtime measurements.")
	for _, k := range keys {
		if s := m.series[k]; s.runtimes != nil {
			t.Histogram(runtimeBounds, s.runtimes, s.totalTime, labels(k)...)
		}
	}
}
