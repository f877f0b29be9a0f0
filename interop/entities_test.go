package interop

import (
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// fleet is one configuration that both sides share: what they declare must be the same to the last argument, or the
// second to come gets a 406.
type fleet struct {
	name   string
	since  string // the first Celery version that has it
	config task.Config
	others []string // queues in use that the configuration does not name
}

var fleets = []fleet{
	{name: "classic", since: "5.2", config: task.Config{Queues: []transport.Queue{
		{Name: "plain"}, // bound to the default exchange, by the default key
		{Name: "direct", Exchange: "direct.x", RoutingKey: "direct.key"},
		{Name: "topic", Exchange: "topic.x", ExchangeType: "topic", RoutingKey: "a.#"},
		{Name: "fanout", Exchange: "fanout.x", ExchangeType: "fanout", RoutingKey: "ignored"},
		{Name: "bound", Unbound: true, Bindings: []transport.Binding{ // kombu, too, makes these bindings only
			{Exchange: "topic.y", ExchangeType: "topic", RoutingKey: "*.y"}, {Exchange: "direct.y", RoutingKey: "y"}}},
		{Name: "limited", Exchange: "limited", RoutingKey: "limited", Arguments: map[string]any{
			"x-max-priority": 10, "x-message-ttl": 60_000, "x-expires": 600_000, "x-max-length": 1000,
			"x-dead-letter-exchange": "dead", "x-dead-letter-routing-key": "dead"}},
		task.Broadcast("everyone"),
	}}},
	{name: "defaults", since: "5.2", config: task.Config{}, others: []string{"made.up"}},
	{name: "topic and priorities by default", since: "5.2", config: task.Config{Queue: "celery", Exchange: "tasks", RoutingKey: "task.default",
		ExchangeType: "topic", QueueMaxPriority: 5}, others: []string{"made.up"}},
	{name: "quorum", since: "5.2", config: task.Config{Queues: []transport.Queue{
		{Name: "safe", Exchange: "safe", RoutingKey: "safe", Arguments: map[string]any{"x-queue-type": "quorum", "x-delivery-limit": 5}}}}},
	{name: "quorum and topic by default", since: "5.5", config: task.Config{QueueType: "quorum", ExchangeType: "topic"},
		others: []string{"made.up"}},
	{name: "quorum and topic where missing", since: "5.6", config: task.Config{
		CreateMissingQueueType: "quorum", CreateMissingQueueExchangeType: "topic"}, others: []string{"made.up"}},
}

// settings are the fleet's for Python.
func (f *fleet) settings(broker string) Settings {
	conf := map[string]any{}
	set := func(name string, v any) {
		if v != "" && v != 0 {
			conf[name] = v
		}
	}
	c := f.config
	set("task_default_exchange", c.Exchange)
	set("task_default_exchange_type", c.ExchangeType)
	set("task_default_routing_key", c.RoutingKey)
	set("task_default_queue_type", c.QueueType)
	set("task_create_missing_queue_type", c.CreateMissingQueueType)
	set("task_create_missing_queue_exchange_type", c.CreateMissingQueueExchangeType)
	set("task_queue_max_priority", c.QueueMaxPriority)
	return Settings{Broker: broker, Backend: "rpc://", Queues: c.Queues, Conf: conf}
}

// on is the fleet's configuration for Go.
func (f *fleet) on(s Settings) task.Config {
	c := f.config
	c.Broker, c.Backend = s.Broker, s.Backend
	return c
}

// names are the queues in use.
func (f *fleet) names() []string {
	names := f.others
	if len(f.config.Queues) == 0 {
		names = append([]string{"celery"}, names...)
	}
	for _, q := range f.config.Queues {
		names = append(names, q.Name)
	}
	return names
}

// TestEntities declares every kind of queue on one side, then on the other, and lets a task through each.
func TestEntities(t *testing.T) {
	t.Parallel()
	ForEachVersion(t, func(t *testing.T, v Version) {
		for _, f := range fleets {
			if v.AtLeast(f.since) {
				t.Run(f.name, func(t *testing.T) {
					t.Parallel()
					c := Crossing{Version: v, Stack: RabbitMQRPCStack}
					byGo, byPython := goFirst(t, c, &f), pythonFirst(t, c, &f)
					c.To(GoToPython).Cell(t, f.name+": what Go declares is what Python declares", func(t *testing.T) {
						for line := range byPython {
							if !byGo[line] {
								t.Errorf("only Python declares %s", line)
							}
						}
						for line := range byGo {
							native := strings.Contains(line, "celery_delayed_") && !c.AtLeast("5.5")
							// By it, delayed messages reach a queue that has no topic exchange (docs/differences.md).
							address := strings.Contains(line, `"#.gelery-queue:`)
							if !byPython[line] && !native && !address {
								t.Errorf("only Go declares %s", line)
							}
						}
					})
				})
			}
		}
	})
}

// goFirst: a Go worker declares; a Python client, who declares before it sends, and then a Python worker come after it.
func goFirst(t *testing.T, c Crossing, f *fleet) (declared map[string]bool) {
	server := testservice.RabbitMQ(t)
	s := f.settings(server.URL)
	stop := runWorker(t, f.on(s), f.names()...)
	declared = declarations(t, server)
	driver := c.StartDriver(t, s)
	for _, name := range f.names() {
		c.To(PythonToGo).Cell(t, f.name+": Go declares "+name, func(t *testing.T) {
			got := run(t, driver, Command{Task: "go.add", Args: []any{2, 3}, Options: map[string]any{"queue": name}})
			if string(got.Value) != "5" {
				t.Errorf("%s %s, want 5", got.State, got.Got)
			}
		})
	}
	stop()
	f.startPython(t, c, s)
	f.sendToEach(t, c.To(GoToPython), s, "Go declares, Python redeclares", "py.add")
	return declared
}

// pythonFirst: a Python worker declares; a Go client and then a Go worker come after it.
func pythonFirst(t *testing.T, c Crossing, f *fleet) (declared map[string]bool) {
	server := testservice.RabbitMQ(t)
	s := f.settings(server.URL)
	python := f.startPython(t, c, s)
	declared = declarations(t, server)
	f.sendToEach(t, c.To(GoToPython), s, "Python declares", "py.add")
	runWorker(t, f.on(s), f.names()...)
	if slices.ContainsFunc(f.config.Queues, func(q transport.Queue) bool { return q.Broadcast }) {
		c.To(GoToPython).Cell(t, f.name+": a broadcast reaches both", func(t *testing.T) { reachesBoth(t, connect(t, f.on(s))) })
	}
	python.Kill()
	f.sendToEach(t, c.To(PythonToGo), s, "Python declares, Go redeclares", "go.add")
	return declared
}

// reachesBoth sends one task that the worker of either side is to run.
func reachesBoth(t *testing.T, client *task.Client) {
	ledger := filepath.Join(t.TempDir(), "ledger")
	res, err := client.Send(within(t), "py.touch", []any{ledger}, nil, task.Queue("everyone"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "both have run it", func() bool {
		text, err := os.ReadFile(ledger)
		return err == nil && string(text) == strings.Repeat(res.ID()+"\n", 2)
	})
}

// declarations are the exchanges, queues and bindings of a virtual host, each with its properties, but for those of
// remote control and events.
func declarations(t testing.TB, server *testservice.RabbitMQServer) map[string]bool {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(server.Manage("GET", "/api/definitions/"+url.PathEscape(server.Vhost), ""), &all); err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for _, kind := range []string{"exchanges", "queues", "bindings"} {
		var entities []json.RawMessage
		if err := json.Unmarshal(all[kind], &entities); err != nil {
			t.Fatal(err)
		}
		for _, e := range entities {
			line := kind + " " + broadcastQueue.ReplaceAllString(string(e), "bcast.*")
			if !strings.Contains(line, "celery.pidbox") && !strings.Contains(line, "celeryev") {
				lines[line] = true
			}
		}
	}
	return lines
}

var broadcastQueue = regexp.MustCompile(`bcast\.[0-9a-f-]{36}`)

func (f *fleet) startPython(t testing.TB, c Crossing, s Settings) *Process {
	t.Helper()
	return c.StartWorker(t, s, "solo", 1, "-Q", strings.Join(f.names(), ","))
}

// sendToEach sends a task from Go to each queue.
func (f *fleet) sendToEach(t *testing.T, c Crossing, s Settings, what, name string) {
	client := connect(t, f.on(s))
	for _, queue := range f.names() {
		c.Cell(t, f.name+": "+what+" "+queue, func(t *testing.T) {
			res, err := client.Send(within(t), name, []any{2, 3}, nil, task.Queue(queue))
			if err != nil {
				t.Fatal(err)
			}
			wantGet(t, res, int64(5))
		})
	}
}
