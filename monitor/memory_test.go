package monitor

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// The events of generated tasks: each is received, started and succeeds; of a hundred one fails and one is retried before.
const (
	eventsEach = 3
	listLength = 256 // events of a message
)

// generator makes messages as a worker sends them.
type generator struct {
	task, step int
	clock      int64
	list       []byte
}

// message is the next message of task events; names are one of a hundred, workers one of ten.
func (g *generator) message() *protocol.Message {
	g.list = append(g.list[:0], '[')
	for i := range listLength {
		if i > 0 {
			g.list = append(g.list, ", "...)
		}
		g.append()
	}
	return protocol.NewEventMessage("w@h", append(g.list, ']'))
}

func (g *generator) append() {
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", g.task, g.task)
	g.clock++
	e := protocol.Event{Hostname: "celery@web" + strconv.Itoa(g.task%10), PID: 1000, Clock: g.clock, Timestamp: time.UnixMicro(1_795_000_000_000_000 + 50*g.clock)}
	kinds := [eventsEach]string{protocol.TaskReceived, protocol.TaskStarted, protocol.TaskSucceeded}
	e.Type = kinds[g.step]
	failed := g.step == 2 && g.task%100 == 7
	if failed {
		e.Type = protocol.TaskFailed
	}
	m := e.Begin(g.list).Text("uuid", id)
	switch {
	case g.step == 0:
		m = m.Text("name", "shop.orders.tasks.step"+strconv.Itoa(g.task%100)).Text("args", "(12345, 'customer@example.org', {'amount': '12.50'})").Text("kwargs", "{}").
			Text("root_id", id).OptionalText("parent_id", "").Int("retries", 0).OptionalText("eta", "").OptionalText("expires", "")
	case failed:
		m = m.Text("exception", "ValueError('boom')").Text("traceback", "Traceback (most recent call last):\n  File \"tasks.py\", line 7, in f\n    raise ValueError('boom')\n")
	case g.step == 2:
		m = m.Text("result", "{'id': 12345, 'state': 'paid'}").Float("runtime", 0.0125)
	}
	g.list = e.End(m)
	if g.step++; g.step == eventsEach {
		g.task, g.step = g.task+1, 0
	}
}

// heap is how much memory is in use, in bytes.
func heap() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// MaxBytes bounds what tasks take whatever it is that fills them: names included, also if no two tasks have the same.
func TestMaxBytesHolds(t *testing.T) {
	const most = 16 << 20
	for name, long := range map[string]int{"short texts": 8, "long texts": 250} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			s, err := NewState(StateConfig{MaxTasks: 1_000_000, MaxBytes: most, MaxWorkers: 1})
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; s.forgotten < 2000; i++ {
				own := func(what string) string { return fmt.Sprintf("%s%0*d", what, long, i) }
				s.Apply([]protocol.Event{
					event(protocol.TaskSent, own("gen@"), 1, "uuid", own("u"), "name", "t", "queue", own("q"), "exchange", own("x"), "routing_key", own("r")),
					event("task-"+own("state"), own("w@"), 1, "uuid", own("u"), "args", own("a"), "exception", own("e"), "root_id", own("o")),
				})
			}
			used := heap() - before
			if told := s.Totals().Bytes; told > most || used > most+most/4 || used < most/2 {
				t.Errorf("of %d bytes %d are told to be used, and %d are", most, told, used)
			}
			s.Clear(false)
			if totals := s.Totals(); totals.Bytes != 0 || len(s.names.all) != 0 {
				t.Errorf("after Clear totals are %+v, and %d names are left", totals, len(s.names.all))
			}
			runtime.KeepAlive(s)
		})
	}
}

// eventsVariable is how many events TestMemoryStaysFlat generates: 10_000_000 is a day's worth.
const eventsVariable = "GELERY_MONITOR_EVENTS"

// TestMemoryStaysFlat: however many events come, the state of a hundred thousand tasks takes what it took when it was full.
func TestMemoryStaysFlat(t *testing.T) {
	events, tasks := 60_000, 3_000
	if text := os.Getenv(eventsVariable); text != "" {
		var err error
		if events, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		tasks = 100_000
	}
	s, err := NewState(StateConfig{MaxTasks: tasks})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReceiver(nil, ReceiverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	g := &generator{}
	var full, peak uint64
	begin := time.Now()
	for n := 0; n < events; n += listLength {
		s.Apply(r.read(&transport.Delivery{Message: g.message()}))
		switch {
		case full == 0 && s.Totals().Forgotten > int64(tasks/10):
			full = heap()
		case full > 0 && n%(events/10/listLength*listLength) == 0:
			peak = max(peak, heap())
		}
	}
	took := time.Since(begin)
	last := heap()
	if totals := s.Totals(); totals.Tasks != tasks || totals.Events < int64(events) || totals.Ignored != 0 || r.Malformed() != 0 {
		t.Errorf("totals are %+v", totals)
	}
	if full == 0 || max(last, peak) > full+full/5+4<<20 {
		t.Errorf("with %d tasks %d bytes are used, after %d events %d, %d in between", tasks, full, events, last, peak)
	}
	t.Logf("%d events in %v, %.0f a second, generated ones; %d tasks: %.1f MB when full, %.1f MB at the end, %.1f MB in between", events, took,
		float64(events)/took.Seconds(), tasks, float64(full)/1e6, float64(last)/1e6, float64(peak)/1e6)
	runtime.KeepAlive(s)
}
