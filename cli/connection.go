package cli

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/rpc"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/internal/poolchild"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

const (
	// connectTimeout is how long a client command tries to reach a server: one attempt of a driver (4 s, Celery's
	// broker_connection_timeout) and what it has to say about it.
	connectTimeout = 5 * time.Second
	closeTimeout   = 5 * time.Second
)

// connect opens what the configuration names and tries for as long as ctx lives. Close must be called.
func connect(ctx context.Context, c task.Config) (_ *task.Client, closeAll func(), err error) {
	return connectLazily(ctx, c, poolchild.Is())
}

// connectLazily is connect, where the result backend may be asked for an answer only when it is needed.
func connectLazily(ctx context.Context, c task.Config, lazy bool) (_ *task.Client, closeAll func(), err error) {
	if _, err := task.NewClient(nil, nil, c); err != nil { // a typo is told before anything is tried
		return nil, nil, usage(err.Error(), "", "")
	}
	var tr transport.Transport
	var backend backends.Backend
	shut := func() {
		// What the command had to say is said; a connection that does not end well changes nothing about it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if backend != nil {
			_ = backend.Close() // first, because it may use the transport
		}
		if tr != nil {
			_ = tr.Close(ctx)
		}
	}
	defer func() {
		if err != nil {
			shut()
		}
	}()
	if c.Broker != "" {
		if err := checkURL("broker", c.Broker, transport.Schemes()); err != nil {
			return nil, nil, err
		}
		options := transport.Options{TransportOptions: c.TransportOptions, Logger: c.Logger, Lazy: poolchild.Is()}
		if tr, err = transport.Open(ctx, c.Broker, options); err != nil {
			return nil, nil, connectFailure(ctx, "broker", c.Broker, err)
		}
	}
	if c.Backend != "" {
		if err := checkURL("result backend", c.Backend, backends.Schemes()); err != nil {
			return nil, nil, err
		}
		options := backends.Options{Serializer: c.ResultSerializer, TransportOptions: c.BackendOptions, Broker: tr,
			Persistent: c.ResultPersistent, Logger: c.Logger, Lazy: lazy}
		if options.Accept, err = serialization.NewAccept(firstOf(c.ResultSerializer, "json")); err != nil {
			return nil, nil, usage("--result-serializer: "+err.Error(), "", "")
		}
		backend, err = backends.Open(ctx, c.Backend, options)
		if errors.Is(err, rpc.ErrNoBroker) {
			return nil, nil, usage("results over rpc:// reach only the client that sent the task", "nothing is stored",
				"wait for it where it is sent: call TASK --wait; or use another result backend")
		}
		if err != nil {
			return nil, nil, connectFailure(ctx, "result backend", c.Backend, err)
		}
	}
	client, err := task.NewClient(tr, backend, c)
	if err != nil {
		return nil, nil, usage(err.Error(), "", "")
	}
	return client, shut, nil
}

// connectBriefly is connect for commands that a person waits for.
func connectBriefly(ctx context.Context, c task.Config) (*task.Client, func(), error) {
	dialing, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return connect(dialing, c)
}

func connectFailure(ctx context.Context, what, url string, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return err // the user gave up, not we
	}
	return unreachable(what, url, err)
}

// lostBroker is an error of a broker that was connected to, told as one that cannot be reached if it is that. RabbitMQ's management
// plugin, which is asked over HTTP and says so, is not the broker.
func lostBroker(broker string, err error) error {
	_, lost := errors.AsType[net.Error](err) // or too slow
	if lost && !strings.Contains(err.Error(), "the management plugin") {
		return unreachable("broker", brokerurl.Redact(broker), err)
	}
	return err
}

// checkURL finds mistakes in a URL before anything is tried. Its scheme must have a driver.
func checkURL(what, url string, schemes []string) error {
	urls, err := brokerurl.Parse(url)
	if err != nil {
		return usage("the "+what+" has no valid URL", err.Error(), "write for example "+defaultBroker)
	}
	if scheme := urls[0].Scheme; !slices.Contains(schemes, scheme) {
		return usage("the "+what+" URL has the unknown scheme "+scheme, "", "known here: "+strings.Join(schemes, ", "))
	}
	return nil
}
