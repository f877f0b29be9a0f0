package task

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/poolchild"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/transport"
)

// Client sends tasks and reads their results: the producer's half of a Celery app. It is safe for concurrent use, and
// one is enough for a process.
type Client struct {
	config    Config
	transport transport.Transport // nil: none, it only reads results
	backend   backends.Backend    // nil: none configured
	owned     bool                // Dial opened both, Close closes them
	router    *router
	replyTo   string
	through   Publish // the middleware; nil: none
	secrets   value.Secrets

	onSent   sentFuncs
	clock    atomic.Int64 // Lamport's, of its events
	mu       sync.Mutex
	declared map[string]struct{} // queues this process has declared
}

// maxDeclared bounds the cache of declared queues, for programs that make queue names up. A queue that fell out is
// declared again, which harms nothing.
const maxDeclared = 10_000

// Dial connects to the broker and the backend of the config and verifies that they answer. It tries for as long as ctx
// lives: without a deadline it does not return while one of them is away. The client it returns outlives ctx. In a child
// of a worker's process pool it connects when the client is first used. The packages of the drivers must be imported:
//
//	import (
//		_ "github.com/gelery/gelery/backends/redis"
//		_ "github.com/gelery/gelery/transport/redis"
//	)
func Dial(ctx context.Context, c Config) (*Client, error) {
	if c.Broker == "" {
		return nil, fmt.Errorf("config: Broker: %w; expected a URL, for example redis://localhost:6379/0", ErrNoBroker)
	}
	client, err := NewClient(nil, nil, c) // checks the whole config before anything is opened
	if err != nil {
		return nil, err
	}
	c = client.config
	client.owned = true
	client.transport, err = transport.Open(ctx, c.Broker,
		transport.Options{TransportOptions: c.TransportOptions, Logger: c.Logger, Lazy: poolchild.Is()})
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if c.Backend != "" {
		var options backends.Options
		if options, err = c.backendOptions(client.transport); err == nil {
			client.backend, err = backends.Open(ctx, c.Backend, options)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("result backend: %w", err), client.transport.Close(ctx))
		}
	}
	return client, nil
}

// NewClient makes a client of connections that are open already; the URLs in the config are not used. Either may be
// nil: whoever sends without a transport gets [ErrNoBroker], whoever wants a result without a backend [ErrNoBackend].
// Close leaves both open.
func NewClient(tr transport.Transport, backend backends.Backend, c Config) (*Client, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	router, err := newRouter(&c)
	if err != nil {
		return nil, err
	}
	client := &Client{
		config:    c,
		transport: tr,
		backend:   backend,
		router:    router,
		replyTo:   protocol.NewID(),
		declared:  map[string]struct{}{},
		secrets:   value.NewSecrets(c.SecretNames...),
	}
	client.through = client.publisher()
	return client, nil
}

// Secrets are what is not shown of arguments and results, whatever the task: [Config.SecretNames].
func (c *Client) Secrets() value.Secrets { return c.secrets }

// Close ends the connections that Dial opened.
func (c *Client) Close(ctx context.Context) error {
	if !c.owned {
		return nil
	}
	var err error
	if c.backend != nil {
		err = c.backend.Close() // first, because it may use the transport
	}
	return errors.Join(err, c.transport.Close(ctx))
}

// Config is the configuration with its defaults filled in.
func (c *Client) Config() Config { return c.config }

// Transport is the client's connection to the broker; nil if there is none.
func (c *Client) Transport() transport.Transport { return c.transport }

// Backend is the client's result backend; nil if there is none.
func (c *Client) Backend() backends.Backend { return c.backend }

// Call is one call of a task by name, for [Client.SendBatch]. [Task.Call] makes one of a defined task.
type Call struct {
	Name    string
	Args    []any
	Kwargs  map[string]any
	Options []SendOption

	defaults *Defaults // of the task, when it is known
	once     bool      // see [Client.ApplyOnce]
	untold   bool      // a part of a workflow, which as a whole is the child of the task that sends it
}

// Send publishes a call of a task known by its name only: Celery's send_task. Arguments are any values package value can
// encode; nil slices and maps are empty ones.
//
// It returns when the broker has the message. An error that wraps a [*transport.PublishError] with InDoubt set means that
// the message may have been sent nevertheless; with an [ID] of your own, and a task that can bear to run twice, you may
// send again. Sent from within a running task, by the context, the call becomes its child: see [NewContext].
func (c *Client) Send(ctx context.Context, name string, args []any, kwargs map[string]any, opts ...SendOption) (*Result[any], error) {
	r, err := c.send(ctx, &Call{Name: name, Args: args, Kwargs: kwargs, Options: opts})
	if err != nil {
		return nil, err
	}
	return &Result[any]{r}, nil
}

// SendBatch publishes the calls in one round trip and returns their results in the same order. Either all calls are
// valid or none is sent. After an error of the broker some may have been sent, if it is in doubt.
func (c *Client) SendBatch(ctx context.Context, calls []Call) ([]*Result[any], error) {
	handles, err := c.sendBatch(ctx, calls)
	if err != nil {
		return nil, err
	}
	results := make([]*Result[any], len(handles))
	for i, h := range handles {
		results[i] = &Result[any]{h}
	}
	return results, nil
}

func (c *Client) send(ctx context.Context, call *Call) (handle, error) {
	if c.through != nil {
		handles, err := c.sendThrough(ctx, []Call{*call})
		if err != nil {
			return handle{}, fmt.Errorf("send task %s: %w", call.Name, err)
		}
		return handles[0], nil
	}
	m, err := c.prepare(ctx, call, time.Now())
	if err != nil {
		return handle{}, fmt.Errorf("send task %s: %w", call.Name, err)
	}
	if err := c.publish(ctx, []outgoing{m}); err != nil {
		return handle{}, fmt.Errorf("send task %s[%s]: %w", call.Name, m.id, err)
	}
	return handle{id: m.id, client: c, ignored: m.ignored}, nil
}

func (c *Client) sendBatch(ctx context.Context, calls []Call) ([]handle, error) {
	if len(calls) == 0 {
		return nil, nil
	}
	if c.through != nil {
		handles, err := c.sendThrough(ctx, calls)
		if err != nil {
			return nil, fmt.Errorf("send batch of %d tasks: %w", len(calls), err)
		}
		return handles, nil
	}
	now := time.Now()
	batch := make([]outgoing, len(calls))
	handles := make([]handle, len(calls))
	for i := range calls {
		m, err := c.prepare(ctx, &calls[i], now)
		if err != nil {
			return nil, fmt.Errorf("send batch: call %d, task %s: %w", i, calls[i].Name, err)
		}
		batch[i] = m
		handles[i] = handle{id: m.id, client: c, ignored: m.ignored}
	}
	if err := c.publish(ctx, batch); err != nil {
		return nil, fmt.Errorf("send batch of %d tasks: %w", len(calls), err)
	}
	return handles, nil
}

// publish declares the queues not declared yet and hands the messages to the broker. What is sent from within a task is
// recorded as its child.
func (c *Client) publish(ctx context.Context, batch []outgoing) error {
	if c.transport == nil {
		return ErrNoBroker
	}
	info, inTask := FromContext(ctx)
	ctx, cancel := context.WithTimeout(ctx, c.publishTimeout(batch))
	defer cancel()
	if err := c.expect(ctx, batch); err != nil {
		return err
	}
	if err := c.deliverAgain(ctx, batch); err != nil {
		return err
	}
	if c.config.SendSentEvent {
		c.tellSent(ctx, batch)
	}
	c.countSent(batch)
	if inTask {
		for _, m := range batch {
			if !m.untold {
				info.addChild(protocol.ResultTuple{ID: m.id})
			}
		}
	}
	return nil
}

// deliverAgain delivers a batch, and once more when a queue that we know to have been there is gone: somebody has deleted
// it.
func (c *Client) deliverAgain(ctx context.Context, batch []outgoing) error {
	err := c.deliver(ctx, batch)
	if p, ok := errors.AsType[*transport.PublishError](err); ok && !p.InDoubt && errors.Is(err, transport.ErrNoRoute) {
		c.undeclare(batch)
		err = c.deliver(ctx, batch)
	}
	return err
}

// deliver declares what the batch needs and publishes it.
func (c *Client) deliver(ctx context.Context, batch []outgoing) error {
	publications := make([]transport.Publication, len(batch))
	for i, m := range batch {
		for _, q := range m.declare {
			if err := c.declareOnce(ctx, q); err != nil && (!m.tolerant || ctx.Err() != nil) {
				return err
			}
		}
		publications[i] = m.publication
	}
	return c.transport.Publish(ctx, publications)
}

// undeclare makes declareOnce declare the batch's queues again.
func (c *Client) undeclare(batch []outgoing) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range batch {
		for _, q := range m.declare {
			delete(c.declared, q.Name)
		}
	}
}

// expect lets a backend that is sent its results make ready for those of the batch, and names its queue in the messages.
func (c *Client) expect(ctx context.Context, batch []outgoing) error {
	replier, ok := c.backend.(backends.Replier)
	if !ok {
		return nil
	}
	ids := make([]string, 0, len(batch))
	for i := range batch {
		if batch[i].awaited {
			ids = append(ids, batch[i].id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	replyTo, err := replier.Expect(ctx, ids...)
	if err != nil {
		return fmt.Errorf("result backend: %w", err)
	}
	for i := range batch {
		if batch[i].awaited {
			batch[i].publication.Message.Properties.ReplyTo = replyTo
		}
	}
	return nil
}

// publishTimeout is how long the batch may take: the shortest time one of its calls asks for, else the configured one.
func (c *Client) publishTimeout(batch []outgoing) time.Duration {
	var shortest time.Duration
	for i := range batch {
		if d := batch[i].timeout; d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return either(shortest, c.config.PublishTimeout)
}

// declareOnce declares a queue the first time this client uses it. Two callers may both do it; it is idempotent.
func (c *Client) declareOnce(ctx context.Context, q transport.Queue) error {
	c.mu.Lock()
	_, done := c.declared[q.Name]
	c.mu.Unlock()
	if done {
		return nil
	}
	if err := c.transport.Declare(ctx, q); err != nil {
		return fmt.Errorf("declare queue %q: %w", q.Name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.declared) >= maxDeclared {
		clear(c.declared)
	}
	c.declared[q.Name] = struct{}{}
	return nil
}
