package task

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/transport"
)

func to(opts ...Option) []Option { return opts }

// TestRoutes checks what was seen of Celery 5.6 with the same settings.
func TestRoutes(t *testing.T) {
	t.Parallel()
	routes := []Route{
		{Task: "t.*", Options: to(Queue("glob"), Priority(7))},
		{Task: "t.b", Options: to(Queue("exact"))}, // exact names are looked up first, wherever they stand
		{Regexp: regexp.MustCompile(`(video|image)\.`), Options: to(Queue("media"))},
		{Func: func(name string, args []any, _ map[string]any) ([]Option, bool) {
			return to(Queue("first-" + args[0].(string))), name == "by.argument"
		}},
		{Task: "late.*", Options: to(Queue("late"))},
		{Task: "t.*", Options: to(Queue("never"))},
	}
	plain := Define[NoArgs, any]("t.a")
	withQueue := Define[NoArgs, any]("t.a", Queue("attr"), Priority(3))
	tests := []struct {
		name  string
		call  Call
		queue string
		prio  int
	}{
		{"glob", plain.Call(NoArgs{}), "glob", 7},
		{"exact before glob", Call{Name: "t.b"}, "exact", 0},
		{"the definition wins over a route", withQueue.Call(NoArgs{}), "attr", 3},
		{"the call wins over both", withQueue.Call(NoArgs{}, Queue("opt")), "opt", 3},
		{"the call wins, and the route fills the rest", plain.Call(NoArgs{}, Queue("opt")), "opt", 7},
		{"regexp", Call{Name: "image.resize"}, "media", 0},
		{"regexp from the beginning only", Call{Name: "my.image.resize"}, "celery", 0},
		{"function", Call{Name: "by.argument", Args: []any{"eu"}}, "first-eu", 0},
		{"behind a function that does not care", Call{Name: "late.x", Args: []any{"eu"}}, "late", 0},
		{"none", Call{Name: "other", Args: []any{""}}, "celery", 0},
		{"a routing key does not move a direct queue", Call{Name: "t.b", Options: []SendOption{RoutingKey("k")}}, "exact", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.call.Args == nil {
				tt.call.Args = []any{""}
			}
			client, p := probeClient(t, Config{Routes: routes})
			if _, err := client.SendBatch(t.Context(), []Call{tt.call}); err != nil {
				t.Fatal(err)
			}
			_, pub := p.last(t)
			if pub.Exchange != "" || pub.RoutingKey != tt.queue || pub.Message.Properties.Priority != tt.prio {
				t.Errorf("went to %q %q with priority %d", pub.Exchange, pub.RoutingKey, pub.Message.Properties.Priority)
			}
			if len(p.declared) != 1 || p.declared[0].Name != tt.queue {
				t.Errorf("declared %v", p.declared)
			}
		})
	}
}

// TestDestination checks exchanges and keys of configured queues.
func TestDestination(t *testing.T) {
	t.Parallel()
	queues := []transport.Queue{
		{Name: "plain"},
		{Name: "direct", Exchange: "ex", ExchangeType: "direct", RoutingKey: "key"},
		{Name: "topic", Exchange: "tx", ExchangeType: "topic", RoutingKey: "a.#"},
		Broadcast("bc"),
	}
	bc := queues[3]
	bc.RoutingKey = "plain"
	tests := []struct {
		name     string
		opts     []SendOption
		exchange string
		key      string
		declared []transport.Queue
	}{
		{"the default queue by its name", nil, "", "plain", []transport.Queue{named("plain")}},
		{"a direct queue by its name", []SendOption{Queue("direct")}, "", "direct", queues[1:2]},
		{"its exchange needs a key too", []SendOption{Queue("direct"), Exchange("ex")}, "", "direct", queues[1:2]},
		{"exchange and key", []SendOption{Queue("direct"), Exchange("e"), RoutingKey("k")}, "e", "k", queues[1:2]},
		{"a topic queue by its binding", []SendOption{Queue("topic")}, "tx", "a.#", queues[2:3]},
		{"a topic queue by a key", []SendOption{Queue("topic"), RoutingKey("a.b")}, "tx", "a.b", queues[2:3]},
		{"an exchange whose queues are known", []SendOption{Exchange("tx"), RoutingKey("a.c")}, "tx", "a.c", queues[2:3]},
		{"the default exchange", []SendOption{Exchange("plain"), RoutingKey("plain")}, "plain", "plain", []transport.Queue{named("plain")}},
		{"an exchange nobody knows", []SendOption{Exchange("e"), RoutingKey("k")}, "e", "k", nil},
		{"a queue made up", []SendOption{Queue("new")}, "", "new", []transport.Queue{named("new")}},
		{"a broadcast", []SendOption{Queue("bc")}, "bc", "plain", []transport.Queue{bc}},
		{"a broadcast with a key", []SendOption{Queue("bc"), RoutingKey("z")}, "bc", "z", []transport.Queue{bc}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			client, p := probeClient(t, Config{Queues: queues, Queue: "plain"})
			if _, err := client.Send(t.Context(), "t", nil, nil, tt.opts...); err != nil {
				t.Fatal(err)
			}
			_, pub := p.last(t)
			if pub.Exchange != tt.exchange || pub.RoutingKey != tt.key {
				t.Errorf("went to %q %q", pub.Exchange, pub.RoutingKey)
			}
			if info := pub.Message.Properties.DeliveryInfo; info.Exchange != tt.exchange || info.RoutingKey != tt.key {
				t.Errorf("retries would go to %+v", info)
			}
			if diff := cmp.Diff(tt.declared, p.declared); diff != "" {
				t.Error(diff)
			}
			if pub.Optional != (tt.exchange == "bc") {
				t.Errorf("optional is %v", pub.Optional)
			}
		})
	}
	no := false
	client, _ := probeClient(t, Config{Queues: queues, Queue: "plain", CreateMissingQueues: &no})
	if _, err := client.Send(t.Context(), "t", nil, nil, Queue("new")); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("got %v", err)
	}
	// Queues without the default one do not make it exist, as in Celery.
	client, _ = probeClient(t, Config{Queues: queues, CreateMissingQueues: &no})
	if _, err := client.Send(t.Context(), "t", nil, nil); !errors.Is(err, ErrUnknownQueue) {
		t.Errorf("got %v", err)
	}
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		want   string
		config Config
	}{
		{"Serializer: serializer \"xml\" is unknown", Config{Serializer: "xml"}},
		{"Serializer: serializer \"pickle\" cannot write", Config{Serializer: "pickle"}},
		{"ResultSerializer:", Config{ResultSerializer: "xml"}},
		{"AcceptContent:", Config{AcceptContent: []string{"json", "xml"}}},
		{"ResultAcceptContent:", Config{ResultAcceptContent: []string{"xml"}}},
		{"Compression:", Config{Compression: "rar"}},
		{"Protocol: 3", Config{Protocol: 3}},
		{"PublishTimeout: -1ns", Config{PublishTimeout: -1}},
		{"Queues[0]: the queue has no name", Config{Queues: []transport.Queue{{}}}},
		{`Queues[1]: the queue "a" stands there twice`, Config{Queues: []transport.Queue{{Name: "a"}, {Name: "a"}}}},
		{`Queues[0]: exchange type "headers"`, Config{Queues: []transport.Queue{{Name: "a", ExchangeType: "headers"}}}},
		{`Queues[0]: the topic exchange of queue "a" needs a name`, Config{Queues: []transport.Queue{{Name: "a", ExchangeType: "topic"}}}},
		{`ExchangeType: "headers"`, Config{ExchangeType: "headers"}},
		{`CreateMissingQueueExchangeType: "x"`, Config{CreateMissingQueueExchangeType: "x"}},
		{`QueueType: "stream"`, Config{QueueType: "stream"}},
		{`CreateMissingQueueType: "lazy"`, Config{CreateMissingQueueType: "lazy"}},
		{`QueueMaxPriority: 256`, Config{QueueMaxPriority: 256}},
		{"Routes[0]: a route has one of", Config{Routes: []Route{{Options: to(Queue("q"))}}}},
		{"Routes[0]: a route has one of", Config{Routes: []Route{{Task: "t", Regexp: regexp.MustCompile("t")}}}},
		{`Routes[0]: option Priority(999)`, Config{Routes: []Route{{Task: "t", Options: to(Priority(999))}}}},
		{`Routes[1]: the task "t" is routed twice`, Config{Routes: []Route{{Task: "t"}, {Task: "t"}}}},
		{`Routes[0]: pattern "[z-a]*"`, Config{Routes: []Route{{Task: "[z-a]*"}}}},
	}
	for _, tt := range tests {
		_, err := NewClient(&probe{}, nil, tt.config)
		if err == nil || !strings.Contains(err.Error(), "config: "+tt.want) {
			t.Errorf("got %v, want %q in it", err, tt.want)
		}
	}
	if _, err := Dial(context.Background(), Config{}); err == nil || !strings.Contains(err.Error(), "config: Broker") {
		t.Errorf("got %v", err)
	}
}
