package task

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/transport"
)

// named is a queue that is only a name, as Celery declares it.
func named(name string) transport.Queue {
	return transport.Queue{Name: name, Exchange: name, ExchangeType: "direct", RoutingKey: name}
}

// TestQueues checks what was seen in app.amqp.queues of Celery 5.2 and 5.6 with the same settings.
func TestQueues(t *testing.T) {
	t.Parallel()
	asked := []transport.Queue{
		{Name: "plain"},
		{Name: "key", RoutingKey: "k"},
		{Name: "ex", Exchange: "e"},
		{Name: "topic", Exchange: "tx", ExchangeType: "topic"},
		{Name: "bound", Bindings: []transport.Binding{{Exchange: "bx", RoutingKey: "bk"}}},
		{Name: "prio", Arguments: map[string]any{"x-max-priority": int64(3)}},
		Broadcast("bc"),
	}
	custom := Config{Queue: "dq", Exchange: "dx", ExchangeType: "topic", RoutingKey: "d.#", QueueMaxPriority: 7}
	seven := map[string]any{"x-max-priority": int64(7)}
	withQueues := func(c Config) Config { c.Queues = asked; return c }
	tests := []struct {
		name   string
		config Config
		want   transport.Queue
	}{
		{"default", Config{}, named("celery")},
		{"missing", Config{}, named("other")},
		{"nothing but a name", Config{Queues: asked},
			transport.Queue{Name: "plain", Exchange: "celery", ExchangeType: "direct", RoutingKey: "celery"}},
		{"a key", Config{Queues: asked},
			transport.Queue{Name: "key", Exchange: "celery", ExchangeType: "direct", RoutingKey: "k"}},
		{"an exchange", Config{Queues: asked},
			transport.Queue{Name: "ex", Exchange: "e", ExchangeType: "direct", RoutingKey: "celery"}},
		{"a topic exchange", Config{Queues: asked},
			transport.Queue{Name: "topic", Exchange: "tx", ExchangeType: "topic", RoutingKey: "celery"}},
		{"bindings are further ones", Config{Queues: asked},
			transport.Queue{Name: "bound", Exchange: "celery", ExchangeType: "direct", RoutingKey: "celery", Bindings: asked[4].Bindings}},
		{"broadcast", Config{Queues: asked},
			transport.Queue{Name: "bc", Exchange: "bc", ExchangeType: "fanout", RoutingKey: "celery", Broadcast: true}},
		{"the default queue is missing from Queues", Config{Queues: asked, ExchangeType: "topic", Exchange: "dx"}, named("celery")},
		{"defaults for Queues", withQueues(custom),
			transport.Queue{Name: "plain", Exchange: "dx", ExchangeType: "topic", RoutingKey: "d.#", Arguments: seven}},
		{"its own priority", withQueues(custom),
			transport.Queue{Name: "prio", Exchange: "dx", ExchangeType: "topic", RoutingKey: "d.#", Arguments: asked[5].Arguments}},
		{"defaults for the default queue", custom,
			transport.Queue{Name: "dq", Exchange: "dx", ExchangeType: "topic", RoutingKey: "d.#", Arguments: seven}},
		{"defaults are not for missing ones", custom,
			transport.Queue{Name: "other", Exchange: "other", ExchangeType: "direct", RoutingKey: "other", Arguments: seven}},
		{"a quorum queue", Config{QueueType: "quorum"},
			transport.Queue{Name: "celery", Exchange: "celery", ExchangeType: "direct", RoutingKey: "celery",
				Arguments: map[string]any{"x-queue-type": "quorum"}, Delayed: true}},
		{"the type is for the default queue", Config{QueueType: "quorum"},
			transport.Queue{Name: "other", Exchange: "other", ExchangeType: "direct", RoutingKey: "other", Delayed: true}},
		{"the type is not for Queues", Config{QueueType: "quorum", Queues: asked},
			transport.Queue{Name: "plain", Exchange: "celery", ExchangeType: "direct", RoutingKey: "celery"}},
		{"missing ones of a type", Config{CreateMissingQueueType: "quorum", CreateMissingQueueExchangeType: "topic", QueueMaxPriority: 7},
			transport.Queue{Name: "other", Exchange: "other", ExchangeType: "topic", RoutingKey: "other",
				Arguments: map[string]any{"x-queue-type": "quorum", "x-max-priority": int64(7)}, Delayed: true}},
		{"by its name only", Config{Queues: []transport.Queue{{Name: "mine", Unbound: true}}},
			transport.Queue{Name: "mine", Unbound: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, _ := probeClient(t, tt.config)
			got, err := client.Queue(tt.want.Name)
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
	no := false
	client, _ := probeClient(t, Config{Queues: asked, CreateMissingQueues: &no})
	if q, err := client.Queue("other"); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("got %v, %v", q, err)
	}
	if asked[0].Exchange != "" || len(asked[5].Arguments) != 1 {
		t.Error("the caller's queues were changed")
	}
}

// TestDelay says which calls rest in the broker, and how long.
func TestDelay(t *testing.T) {
	t.Parallel()
	quorumQueue := transport.Queue{Name: "q", Arguments: map[string]any{"x-queue-type": "quorum"}}
	topic := transport.Queue{Name: "topic", Exchange: "tx", ExchangeType: "topic", RoutingKey: "a.#"}
	classic := Config{Queues: []transport.Queue{topic, {Name: "celery"}}}
	mixed := Config{Queues: []transport.Queue{topic, quorumQueue, Broadcast("bc"), {Name: "d", Exchange: "dx", RoutingKey: "k"}}}
	in := Countdown(time.Minute)
	tests := []struct {
		name   string
		config Config
		opts   []SendOption
		min    time.Duration // 0: not at all
	}{
		{"classic queues", classic, []SendOption{in}, 0},
		{"a classic topic queue", classic, []SendOption{Queue("topic"), in}, 0},
		{"no eta", mixed, nil, 0},
		{"less than a second", mixed, []SendOption{Queue("q"), Countdown(999 * time.Millisecond)}, 0},
		{"in the past", mixed, []SendOption{Queue("q"), ETA(time.Now().Add(-time.Hour))}, 0},
		{"a second", mixed, []SendOption{Queue("q"), Countdown(time.Second)}, time.Second},
		{"a quorum queue", mixed, []SendOption{Queue("q"), in}, time.Minute},
		{"an eta", mixed, []SendOption{Queue("q"), ETA(time.Now().Add(time.Hour))}, time.Hour - time.Minute},
		{"any queue beside a quorum queue", mixed, []SendOption{Queue("topic"), in}, time.Minute},
		{"one made up", mixed, []SendOption{Queue("new"), in}, time.Minute},
		{"a broadcast", mixed, []SendOption{Queue("bc"), in}, time.Minute},
		{"a topic exchange", mixed, []SendOption{Exchange("tx"), RoutingKey("a.b"), in}, time.Minute},
		{"a direct exchange by its key", mixed, []SendOption{Exchange("dx"), RoutingKey("k"), in}, 0},
		{"an exchange nobody knows", mixed, []SendOption{Exchange("e"), RoutingKey("k"), in}, 0},
		{"a topic queue through such an exchange", mixed, []SendOption{Queue("topic"), Exchange("e"), RoutingKey("k"), in}, 0},
		{"beyond what 28 bits count", mixed, []SendOption{Queue("q"), Countdown(20 * 365 * 24 * time.Hour)}, (1<<28 - 1) * time.Second},
		{"quorum by default", Config{QueueType: "quorum"}, []SendOption{in}, time.Minute},
		{"quorum when missing", Config{CreateMissingQueueType: "quorum"}, []SendOption{Queue("new"), in}, time.Minute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, p := probeClient(t, tt.config)
			if _, err := client.Send(t.Context(), "t", nil, nil, tt.opts...); err != nil {
				t.Fatal(err)
			}
			r, pub := p.last(t)
			if pub.Delay < tt.min || pub.Delay > tt.min+time.Minute || tt.min == 0 && pub.Delay != 0 {
				t.Errorf("rests for %v, expected %v", pub.Delay, tt.min)
			}
			if pub.Delay > 0 && r.ETA == "" {
				t.Error("the eta is gone")
			}
			for _, q := range p.declared {
				if pub.Delay > 0 && !q.Delayed {
					t.Errorf("declared without a way for delayed messages: %+v", q)
				}
			}
		})
	}
}
