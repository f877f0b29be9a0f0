package task

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// Config is what a producer, and each worker, must agree on with the rest of the fleet. The zero value of a field means
// its default; the defaults are Celery's unless a field says otherwise. Each names the Celery setting it stands for.
type Config struct {
	// Broker is the broker's URL, kombu's forms included. broker_url. Required by Dial.
	Broker string
	// Backend is the result backend's URL; empty: none, results cannot be read. result_backend.
	Backend string
	// TransportOptions are the broker driver's options under kombu's names. broker_transport_options.
	TransportOptions map[string]any
	// BackendOptions are the backend driver's. result_backend_transport_options.
	BackendOptions map[string]any

	// Queue is where tasks go that no option, definition or route sends elsewhere. Default "celery".
	// task_default_queue.
	Queue string
	// Queues declares queues that are more than a name: their exchange, binding and arguments. task_queues.
	Queues []transport.Queue
	// CreateMissingQueues says whether a queue that is not in Queues may be used; it is declared then with a direct
	// exchange of its own name. With false its use is ErrUnknownQueue. Default true. task_create_missing_queues.
	CreateMissingQueues *bool
	// Routes choose queues by task name. task_routes.
	Routes []Route

	// Serializer writes task bodies. Default "json". task_serializer.
	Serializer string
	// Compression compresses task bodies. Default none. task_compression.
	Compression string
	// Protocol is the version of the task message, 2 or 1. Default 2. task_protocol.
	Protocol int
	// AcceptContent lists the serializers a worker decodes, by name or MIME type. Default {"json"}. accept_content.
	AcceptContent []string
	// ResultSerializer writes and reads results; all sides must use the same. Default "json". result_serializer.
	ResultSerializer string
	// ResultAcceptContent lists the serializers results may be read with. Default: ResultSerializer alone.
	// result_accept_content.
	ResultAcceptContent []string
	// ResultExpires is how long results are kept. Default 24 hours; negative: for ever. result_expires.
	ResultExpires time.Duration
	// IgnoreResult throws results away unless a task or a call says otherwise. Default false. task_ignore_result.
	IgnoreResult bool

	// PublishTimeout bounds a Send, reconnecting included, beside the context's own deadline. Default 10 s. It stands
	// for task_publish_retry_policy: the transport retries until then. The option PublishTimeout is that of one call.
	PublishTimeout time.Duration
	// Origin is the sender as messages name it. Default "gen<pid>@<hostname>", as Celery has it.
	Origin string
	// Logger receives what happens in the background. Default slog.Default().
	Logger *slog.Logger
}

// withDefaults validates c and returns it with all defaults filled in.
func (c Config) withDefaults() (Config, error) {
	c.Queue = either(c.Queue, "celery")
	c.Serializer = either(c.Serializer, "json")
	c.ResultSerializer = either(c.ResultSerializer, "json")
	c.Protocol = either(c.Protocol, 2)
	c.PublishTimeout = either(c.PublishTimeout, 10*time.Second)
	if len(c.AcceptContent) == 0 {
		c.AcceptContent = []string{"json"}
	}
	if len(c.ResultAcceptContent) == 0 {
		c.ResultAcceptContent = []string{c.ResultSerializer}
	}
	if c.CreateMissingQueues == nil {
		yes := true
		c.CreateMissingQueues = &yes
	}
	if c.Origin == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "localhost"
		}
		c.Origin = "gen" + strconv.Itoa(os.Getpid()) + "@" + host
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, c.validate()
}

// validate checks what can be checked without a connection and names the field at fault.
func (c *Config) validate() error {
	if err := checkSerializer(c.Serializer); err != nil {
		return fmt.Errorf("config: Serializer: %w", err)
	}
	if err := checkSerializer(c.ResultSerializer); err != nil {
		return fmt.Errorf("config: ResultSerializer: %w", err)
	}
	if _, err := serialization.NewAccept(c.AcceptContent...); err != nil {
		return fmt.Errorf("config: AcceptContent: %w", err)
	}
	if _, err := serialization.NewAccept(c.ResultAcceptContent...); err != nil {
		return fmt.Errorf("config: ResultAcceptContent: %w", err)
	}
	if c.Compression != "" {
		if _, _, err := compression.Compress(c.Compression, nil); err != nil {
			return fmt.Errorf("config: Compression: %w", err)
		}
	}
	if c.Protocol != 1 && c.Protocol != 2 {
		return fmt.Errorf("config: Protocol: %d is not 1 or 2", c.Protocol)
	}
	if c.PublishTimeout < 0 {
		return fmt.Errorf("config: PublishTimeout: %v is negative", c.PublishTimeout)
	}
	seen := map[string]bool{}
	for i, q := range c.Queues {
		if q.Name == "" {
			return fmt.Errorf("config: Queues[%d]: the queue has no name", i)
		}
		if seen[q.Name] {
			return fmt.Errorf("config: Queues[%d]: the queue %q stands there twice", i, q.Name)
		}
		seen[q.Name] = true
		switch q.ExchangeType {
		case "", "direct", "topic", "fanout":
		default:
			return fmt.Errorf("config: Queues[%d]: exchange type %q is not direct, topic or fanout", i, q.ExchangeType)
		}
	}
	return nil
}

// backendOptions are what the backend's driver needs of c.
func (c *Config) backendOptions() (backends.Options, error) {
	accept, err := serialization.NewAccept(c.ResultAcceptContent...)
	return backends.Options{
		Expires:          c.ResultExpires,
		Serializer:       c.ResultSerializer,
		Accept:           accept,
		TransportOptions: c.BackendOptions,
		Logger:           c.Logger,
	}, err
}

// checkSerializer refuses a name that cannot write task bodies.
func checkSerializer(name string) error {
	s, ok := serialization.Lookup(name)
	if !ok {
		return fmt.Errorf("serializer %q is unknown; known: %s", name, strings.Join(serialization.Names(), ", "))
	}
	switch s.Name() {
	case "pickle", "raw":
		return fmt.Errorf("serializer %q cannot write; use json, msgpack or yaml", name)
	}
	return nil
}
