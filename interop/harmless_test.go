package interop

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/worker"
)

// oddities is how much each Go worker is sent: so many commands, so many tasks, and a quarter of it by Celery's own client.
var oddities = flag.Int("oddities", 60, "odd commands and tasks that each worker is sent")

// TestNothingStopsPython: whatever a Go worker is called and sent, what it publishes has the fields and types that Python workers
// need (transports.md 4.2, 4.5, 5 and 3.2), and a Python worker with gossip and mingle, Celery's receiver of events with its state of
// the cluster, and Celery's client of remote control take it without an error.
func TestNothingStopsPython(t *testing.T) {
	t.Parallel()
	forOldestAndNewest(t, []Stack{RedisStack, RabbitMQStack}, func(t *testing.T, c Crossing) {
		s := c.Open(t)
		s.Queue = pyQueue
		python := func(node string, args ...string) *Process {
			return Start(t, node, c.Command(t, s, "celery", append([]string{"-A", "app", "worker", "-l", "debug", "-P", "threads", "-c", "1",
				"-Q", pyQueue, "-n", node}, args...)...))
		}
		gossip := python("py1@box", "--without-mingle")
		gossip.WaitFor(t, `\bready\.`, time.Minute)
		driver, monitor := c.StartDriver(t, s), c.startCapture(t, s)
		answers(t, driver, "py1@box")
		for i, settings := range []worker.Config{
			{Hostname: "go1@box"},
			{Hostname: `é☃"'\{}$#*.@b.o;x`},
			{Hostname: strings.Repeat("long", 40) + "@" + strings.Repeat("x", 60)},
			{Hostname: "worker.elect@celeryev"},
		} {
			c.To(GoToPython).Cell(t, "nothing stops Python: "+settings.Hostname, func(t *testing.T) {
				o := newOdd(t, s, uint64(i), settings)
				o.control(t)
				o.tasks(t)
				o.controlByPython(t, driver)
				o.elects(t)
				if i == 3 { // one that starts asks what is revoked
					late := python("py2@box")
					late.WaitFor(t, `mingle: sync complete`, 2*time.Minute)
					late.WaitFor(t, `\bready\.`, patience)
					answers(t, driver, "py2@box")
					wellBehaved(t, late)
					late.Stop(t, time.Minute)
				}
				o.stop()
				o.judge(t)
				eventually(t, "the monitor has heard of its end", func() bool { return len(monitor.of(settings.Hostname, protocol.WorkerOffline)) == 1 })
				gossip.WaitFor(t, regexp.QuoteMeta(settings.Hostname)+` left`, patience)
				ping(t, driver, "py1@box")
				wellBehaved(t, gossip)
			})
		}
		wantResult(t, dial(t, s, 2), "py.add", []any{2, 3}, int64(5))
	})
}

// wellBehaved wants that a Python worker has not said that anything was wrong.
func wellBehaved(t *testing.T, p *Process) {
	t.Helper()
	for line := range strings.Lines(p.Output.Tail(maxLines)) {
		if strings.Contains(line, "ERROR/") || strings.Contains(line, "CRITICAL/") || strings.HasPrefix(line, "Traceback") {
			t.Errorf("%s says %s", p.Name, line)
		}
	}
}

// odd sends odd things to a Go worker, and hears what it publishes.
type odd struct {
	rand   *rand.Rand
	node   string
	queue  string
	client *task.Client
	stop   func()

	mu      sync.Mutex
	events  []transport.Delivery
	replies map[string]transport.Delivery // by ticket
	asked   map[string]string             // methods by ticket
}

// replyKey is where the replies go.
const replyKey = "odd-replies"

func newOdd(t *testing.T, s Settings, seed uint64, settings worker.Config) *odd {
	t.Helper()
	o := &odd{rand: rand.New(rand.NewPCG(seed, 1)), node: settings.Hostname, queue: fmt.Sprint(goQueue, seed),
		replies: map[string]transport.Delivery{}, asked: map[string]string{}}
	o.client = dial(t, s, 2)
	o.hear(t, protocol.EventExchange, "#", func(d transport.Delivery) { o.events = append(o.events, d) })
	o.hear(t, protocol.PidboxReplyExchange, replyKey, func(d transport.Delivery) {
		for _, h := range d.Message.Headers.Extra {
			if h.Name == "ticket" {
				o.replies[string(h.Value)] = d
			}
		}
	})
	settings.Queues, settings.Concurrency, settings.TaskEvents, settings.HeartbeatInterval = []string{o.queue}, 2, true, 100*time.Millisecond
	settings.Logger = slog.New(slog.DiscardHandler) // thousands of lines, some of 100,000 bytes
	o.stop = runMux(t, task.Config{Broker: s.Broker, Backend: s.Backend}, oddTasks(), settings)
	return o
}

// hear keeps what comes over an exchange, until the test ends.
func (o *odd) hear(t *testing.T, exchange, key string, keep func(transport.Delivery)) {
	t.Helper()
	heard, err := o.client.Transport().Subscribe(within(t), exchange, key)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for {
			d, err := heard.Receive(ctx)
			if err != nil {
				return
			}
			o.mu.Lock()
			keep(d)
			o.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		hearing.Wait()
		if err := heard.Close(); err != nil {
			t.Errorf("close the subscription: %v", err)
		}
	})
}

// oddTasks return and raise what they are given.
func oddTasks() *worker.Mux {
	mux := worker.NewMux()
	mux.Func("odd.returns", func(v any) (any, error) { return v, nil })
	mux.Func("odd.fails", func(v any) (any, error) { return nil, errors.New(fmt.Sprint(v)) })
	mux.Func("odd.panics", func(v any) (any, error) { panic(v) })
	mux.Func("odd.raises", func(v any) (any, error) { return nil, task.AsPython(nil, fmt.Sprint(v), fmt.Sprint(v), v, v) })
	mux.Func("odd.rejects", func(v any) (any, error) { return nil, task.Reject(errors.New(fmt.Sprint(v)), false) })
	mux.Func("odd\xed\xa0\x80", func(v any) (any, error) { return v, nil }, task.RateLimit("1000000/s"))
	return mux
}

// text is a text that somebody may have overlooked.
func (o *odd) text() string {
	all := []string{"", "a", "é☃\U0001f600", "\x00", "\xed\xa0\x80", "\xff\xfe", strings.Repeat("x", 100_000), `"`, "'", `\`, "\r\n", "\u2028", "%s", "{}",
		"worker.elect", "\x06\x16", "hostname", "None", "1", "-1", "2026-11-26T14:00:00", "1/s", "nan", "SIGTERM", "TERM", "\x1b[2J", "go1@box", "odd.returns"}
	return all[o.rand.IntN(len(all))]
}

// value is any canonical value.
func (o *odd) value(depth int) any {
	kinds := 16
	if depth > 3 {
		kinds = 12
	}
	switch o.rand.IntN(kinds) {
	case 0:
		return nil
	case 1:
		return o.rand.IntN(2) == 0
	case 2:
		return []int64{0, 1, -1, math.MaxInt64, math.MinInt64, 1 << 53}[o.rand.IntN(6)]
	case 3:
		return new(big.Int).Lsh(big.NewInt(1), uint(o.rand.IntN(5000)))
	case 4:
		return []float64{0, -0.5, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, 5e-324}[o.rand.IntN(7)]
	case 5:
		return []byte(o.text())
	case 6:
		return time.Date(1+o.rand.IntN(9998), 2, 3, 4, 5, 6, 7000, time.FixedZone("", 3600))
	case 7:
		return value.Decimal("1.50")
	case 8:
		return uuid.UUID{1}
	case 12, 13:
		list := []any{}
		for range o.rand.IntN(4) {
			list = append(list, o.value(depth+1))
		}
		return list
	case 14, 15:
		object := map[string]any{}
		for range o.rand.IntN(4) {
			object[o.text()] = o.value(depth + 1)
		}
		return object
	}
	return o.text()
}

// The commands of remote control and their arguments. Left out are shutdown and disable_events, after which nothing would come.
var (
	oddMethods = strings.Fields(`active reserved scheduled revoked registered active_queues stats conf query_task clock hello report memsample memdump
		objgraph ping revoke terminate revoke_by_stamped_headers rate_limit time_limit add_consumer cancel_consumer pool_grow pool_shrink pool_restart
		autoscale enable_events heartbeat election dump_active dump_conf dump_tasks dump_revoked dump_reserved dump_schedule`)
	oddArguments = strings.Fields(`safe taskinfoitems builtins with_defaults ids from_node revoked samples type num task_id terminate signal headers
		task_name rate_limit hard soft queue exchange exchange_type routing_key n modules reload max min id topic action`)
)

// request is a command with arguments that may make no sense.
func (o *odd) request() (method string, arguments map[string]any) {
	arguments = map[string]any{}
	for range o.rand.IntN(12) {
		name := oddArguments[o.rand.IntN(len(oddArguments))]
		arguments[name] = o.value(0)
		if o.rand.IntN(2) == 0 {
			arguments[name] = o.text()
		}
	}
	if o.rand.IntN(20) == 0 {
		return "no" + o.text(), arguments
	}
	method = oddMethods[o.rand.IntN(len(oddMethods))]
	if method == "election" || method == "hello" { // what Python workers hear of
		arguments["id"], arguments["topic"], arguments["from_node"] = o.text(), o.text(), o.text()
		arguments["revoked"] = map[string]any{o.text(): o.value(2), o.text(): o.value(2)}
	}
	return method, arguments
}

// control sends commands, and waits for all replies.
func (o *odd) control(t *testing.T) {
	t.Helper()
	for i := range *oddities {
		method, arguments := o.request()
		if arguments["queue"] == o.queue {
			continue
		}
		ticket := fmt.Sprint(i, " ", o.text())
		r := &protocol.PidboxRequest{Method: method, Arguments: arguments, Destination: []string{o.node}, Ticket: ticket,
			ReplyTo: protocol.PidboxReplyTo{Exchange: protocol.PidboxReplyExchange, RoutingKey: replyKey}, Clock: i}
		m, err := r.Message(serialization.JSON)
		if err != nil {
			t.Fatal(err)
		}
		o.asked[string(serialization.AppendString(nil, ticket))] = method
		if err := o.client.Transport().Broadcast(within(t), protocol.PidboxExchange, "", m); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all is answered", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return len(o.replies) == len(o.asked)
	})
}

// tasks sends messages of tasks, and waits until one that comes behind them has run.
func (o *odd) tasks(t *testing.T) {
	t.Helper()
	names := []string{"odd.returns", "odd.fails", "odd.panics", "odd.raises", "odd.rejects", "odd\xed\xa0\x80", "no.such", "celery.chord_unlock"}
	var all []transport.Publication
	for i := range *oddities {
		name := names[o.rand.IntN(len(names))]
		args, kwargs := any([]any{o.value(0)}), any(map[string]any{})
		if o.rand.IntN(5) == 0 {
			args, kwargs = o.value(0), o.value(0)
		}
		body, err := serialization.AppendJSON(nil, []any{args, kwargs, map[string]any{"callbacks": nil}})
		if err != nil {
			t.Fatal(err)
		}
		retries := []int{0, 1, -1, math.MaxInt32}[o.rand.IntN(4)]
		m := &protocol.Message{ContentType: "application/json", ContentEncoding: "utf-8", Body: body, Headers: protocol.Headers{Lang: "py", Task: name,
			ID: fmt.Sprint(i, o.text()), RootID: o.text(), ParentID: o.text(), ArgsRepr: o.text(), KwargsRepr: o.text(), Shadow: o.text(), Retries: retries,
			Origin: o.text(), Group: o.text()}}
		switch o.rand.IntN(10) {
		case 0:
			m.Headers.Expires = "2000-01-01T00:00:00"
		case 1:
			m.Headers.ETA = "2026-11-26T00:00:00+00:00"
		case 2:
			m.Headers.ETA = o.text()
		}
		all = append(all, transport.Publication{Message: m, RoutingKey: o.queue})
	}
	for _, p := range all { // each alone: a broker may refuse one
		if err := o.client.Transport().Publish(within(t), []transport.Publication{p}); err != nil {
			t.Logf("not sent: %v", err)
		}
	}
	wantResult(t, o.client, "odd.returns", []any{1}, int64(1), task.Queue(o.queue))
}

// controlByPython has Celery's own client ask.
func (o *odd) controlByPython(t *testing.T, driver *Driver) {
	t.Helper()
	for range *oddities / 4 {
		method, arguments := o.request()
		plain, ok := plainJSON(arguments).(map[string]any)
		if !ok || arguments["queue"] == o.queue {
			continue
		}
		a := driver.Do(t, Command{Op: "control", Task: method, Kwargs: plain, Timeout: 30, Options: map[string]any{"destination": []string{o.node}}})
		if !a.OK || !strings.HasPrefix(string(a.Value), "[{") {
			t.Errorf("%s %.300v: Celery's client has %s: %s %s", method, plain, a.Kind, a.Error, a.Value)
		}
	}
}

// elects has the worker take part in an election, for which it must have begun to listen to others.
func (o *odd) elects(t *testing.T) {
	t.Helper()
	eventually(t, "it has acknowledged a candidate", func() bool {
		o.mu.Lock()
		heard := slices.ContainsFunc(o.events, func(d transport.Delivery) bool {
			return d.Err == nil && eventOf(t, &d, o.node) && strings.Contains(string(d.Message.Body), "worker-elect-ack")
		})
		o.mu.Unlock()
		if heard {
			return true
		}
		r := &protocol.PidboxRequest{Method: "election", Destination: []string{o.node},
			Arguments: map[string]any{"id": uuid.NewString(), "topic": "odd", "action": nil}}
		m, err := r.Message(serialization.JSON)
		if err == nil {
			err = o.client.Transport().Broadcast(within(t), protocol.PidboxExchange, "", m)
		}
		if err != nil {
			t.Fatal(err)
		}
		return false
	})
}

// plainJSON is a value as encoding/json can write it.
func plainJSON(v any) any {
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = plainJSON(v[i])
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for name, x := range v {
			out[name] = plainJSON(x)
		}
		return out
	}
	return v
}

// judge compares what was published with what Python needs.
func (o *odd) judge(t *testing.T) {
	t.Helper()
	eventually(t, "its last event has come", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		return slices.ContainsFunc(o.events, func(d transport.Delivery) bool {
			return d.Err == nil && d.Message.Properties.DeliveryInfo.RoutingKey == "worker.offline" && eventOf(t, &d, o.node)
		})
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	seen, clock := map[string]int{}, int64(0)
	for i := range o.events {
		if d := &o.events[i]; eventOf(t, d, o.node) {
			for _, e := range judgeEvents(t, d) {
				if e["hostname"] != o.node {
					t.Errorf("an event is of %v: %.300s", e["hostname"], d.Message.Body)
				}
				if at, _ := e["clock"].(int64); at <= clock {
					t.Errorf("the clock goes from %d to %d", clock, at)
				} else {
					clock = at
				}
				kind, _ := e["type"].(string)
				seen[kind]++
			}
		}
	}
	for kind := range eventFields {
		if seen[kind] == 0 && kind != "task-retried" {
			t.Errorf("no %s has come; expected all kinds: %v", kind, seen)
		}
	}
	for ticket, d := range o.replies {
		judgeReply(t, &d, o.node, o.asked[ticket])
	}
	t.Logf("%d replies, events %v", len(o.replies), seen)
}

// eventOf tells whether a message is of the node, by the header.
func eventOf(t *testing.T, d *transport.Delivery, node string) bool {
	t.Helper()
	if d.Err != nil {
		t.Errorf("%.300q: %v", d.Raw, d.Err)
		return false
	}
	return slices.ContainsFunc(d.Message.Headers.Extra, func(h protocol.Header) bool {
		name, err := serialization.DecodeJSON(h.Value)
		return h.Name == "hostname" && err == nil && name == node
	})
}
