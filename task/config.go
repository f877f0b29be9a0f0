package task

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/poolchild"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
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
	// Exchange is the exchange of entries of Queues that name none, and of Queue when Queues is empty. Default: the name
	// in Queue. task_default_exchange.
	Exchange string
	// ExchangeType is its type: "direct", "topic" or "fanout". Default "direct". task_default_exchange_type.
	ExchangeType string
	// RoutingKey is the binding key of entries of Queues that have none, and of Queue when Queues is empty. Default: the
	// name in Queue. task_default_routing_key.
	RoutingKey string
	// QueueType is the type of Queue when Queues is empty: "classic" or "quorum". Default "classic".
	// task_default_queue_type.
	QueueType string
	// Queues declares queues that are more than a name: their exchange, binding and arguments. An entry without an
	// exchange or a key gets the default ones above. A worker that is told no queues serves all of these. task_queues.
	//
	// With a quorum queue among them, or as QueueType or CreateMissingQueueType, tasks with an eta or a countdown of at
	// least a second rest in the broker, if it can: Celery's native delayed delivery.
	Queues []transport.Queue
	// CreateMissingQueues says whether a queue that is not in Queues may be used; it is declared then with an exchange of
	// its own name. With false its use is ErrUnknownQueue. Default true. task_create_missing_queues.
	CreateMissingQueues *bool
	// CreateMissingQueueType is the type of such a queue: "classic" or "quorum". Default "classic".
	// task_create_missing_queue_type, of Celery 5.6.
	CreateMissingQueueType string
	// CreateMissingQueueExchangeType is the type of its exchange: "direct", "topic" or "fanout". Default "direct".
	// task_create_missing_queue_exchange_type, of Celery 5.6.
	CreateMissingQueueExchangeType string
	// QueueMaxPriority is the x-max-priority, up to 255, of every queue that has none in its arguments. Default 0: none,
	// and RabbitMQ ignores priorities. task_queue_max_priority.
	QueueMaxPriority int
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
	// ResultPersistent lets results survive a restart of the broker on an rpc:// backend, where they are messages.
	// Default false. result_persistent.
	ResultPersistent bool
	// InheritParentPriority gives what a task sends, and what follows it, the priority of its own message unless the call, its
	// route or its definition has one. Default false. task_inherit_parent_priority.
	InheritParentPriority bool
	// HeaderErrbacks lets the error callbacks of a chord be called for each part of its header that fails too, with no argument put
	// before theirs, and not for its body alone. It is for chords that this program sends. Default false.
	// task_allow_error_cb_on_chord_header.
	HeaderErrbacks bool
	// IgnoreResult throws results away unless a task or a call says otherwise. Default false. task_ignore_result.
	IgnoreResult bool

	// SendSentEvent sends the event task-sent for each call, right behind its message, for monitors. It costs each Send and
	// SendBatch one round trip more, and never an error. Default false. task_send_sent_event.
	SendSentEvent bool
	// EventExchange is the exchange of events. Default "celeryev". event_exchange.
	EventExchange string

	// SecretNames are names of values that argsrepr, kwargsrepr, events, logs and inspect do not show: '********' stands for
	// what is given under a name that is one of these or ends with one, in arguments, in results and in what is inside of
	// either. Letters, "-" and "_" do not matter. What is stored and what runs is as it was given. Default:
	// [value.DefaultSecretNames]; an empty list hides nothing. The option secret of a field's task tag hides one by itself.
	SecretNames []string
	// Middleware wraps every Send and SendBatch of this client, the first one outermost. Default: none.
	Middleware []PublishMiddleware
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
	c.Exchange = either(c.Exchange, c.Queue)
	c.ExchangeType = either(c.ExchangeType, direct)
	c.RoutingKey = either(c.RoutingKey, c.Queue)
	c.QueueType = either(c.QueueType, classic)
	c.CreateMissingQueueType = either(c.CreateMissingQueueType, classic)
	c.CreateMissingQueueExchangeType = either(c.CreateMissingQueueExchangeType, direct)
	c.Serializer = either(c.Serializer, "json")
	c.ResultSerializer = either(c.ResultSerializer, "json")
	c.Protocol = either(c.Protocol, 2)
	c.EventExchange = either(c.EventExchange, protocol.EventExchange)
	c.PublishTimeout = either(c.PublishTimeout, 10*time.Second)
	if c.SecretNames == nil {
		c.SecretNames = value.DefaultSecretNames
	}
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
	return c.validateQueues()
}

// backendOptions are what the backend's driver needs of c and its broker.
func (c *Config) backendOptions(broker transport.Transport) (backends.Options, error) {
	accept, err := serialization.NewAccept(c.ResultAcceptContent...)
	return backends.Options{
		Expires:          c.ResultExpires,
		Serializer:       c.ResultSerializer,
		Accept:           accept,
		TransportOptions: c.BackendOptions,
		Broker:           broker,
		Persistent:       c.ResultPersistent,
		Logger:           c.Logger,
		Lazy:             poolchild.Is(),
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
