package transport

import (
	"context"
	"log/slog"

	"github.com/gelery/gelery/internal/registry"
)

// Options are what a driver may be told beside the URL: Celery's broker_transport_options, and where to log.
type Options struct {
	// TransportOptions are kombu's transport options by their own names ("visibility_timeout", "global_keyprefix",
	// "priority_steps", "master_name", …). A driver refuses a name it does not know and a value it cannot use.
	TransportOptions map[string]any
	// Logger receives what a driver does on its own: reconnects, restores, quarantine. Default slog.Default().
	Logger *slog.Logger
	// Lazy connects when the transport is first used, not before Open returns: for processes that may never use it, the
	// children of a process pool. Such a transport has none of the optional interfaces (Inspector and the like).
	Lazy bool
}

// Opener connects to the broker at a URL. It verifies that the broker answers before it returns.
type Opener func(ctx context.Context, url string, o Options) (Transport, error)

var drivers = registry.New[Opener]("transport", "broker", "redis://localhost:6379/0")

// Register makes a driver available under URL schemes. Drivers call it from init; a scheme registered twice panics.
func Register(open Opener, schemes ...string) { drivers.Register(open, schemes...) }

// Open connects to a broker by URL, kombu's forms included: a list of URLs separated by ";" is a failover list and is
// handed to the driver whole. The driver's package must be imported:
//
//	import _ "github.com/gelery/gelery/transport/redis"
func Open(ctx context.Context, url string, o Options) (Transport, error) {
	open, err := drivers.Find(url)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Lazy {
		return newLazy(url, func(ctx context.Context) (Transport, error) { return open(ctx, url, o) }), nil
	}
	return open(ctx, url, o)
}

// Schemes lists the registered URL schemes, sorted.
func Schemes() []string { return drivers.Schemes() }
