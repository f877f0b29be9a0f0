package backends

import (
	"context"
	"log/slog"
	"time"

	"github.com/gelery/gelery/internal/registry"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// Options are what a backend may be told beside the URL.
type Options struct {
	// Expires is how long a result is kept: Celery's result_expires. 0 means Celery's default of 24 hours; negative
	// means for ever.
	Expires time.Duration
	// Serializer writes the meta document: Celery's result_serializer. Both sides must use the same one, a stored
	// document carries no type. Default "json".
	Serializer string
	// Accept limits what may be read (result_accept_content). Zero: Serializer only.
	Accept serialization.Accept
	// TransportOptions are Celery's result_backend_transport_options by their own names ("global_keyprefix",
	// "master_name", …). A driver refuses a name it does not know.
	TransportOptions map[string]any
	// Broker is the connection over which a backend sends results that keeps none itself (rpc://). It must outlive the
	// backend. nil where there is none; a backend that needs it then refuses to open.
	Broker transport.Transport
	// Persistent sends such results as persistent messages: Celery's result_persistent. Default false.
	Persistent bool
	// Logger receives what a driver does on its own. Default slog.Default().
	Logger *slog.Logger
	// Lazy opens a backend without asking whether it answers: for processes that may never use it, the children of a
	// process pool.
	Lazy bool
}

// Opener connects to the backend at a URL and, unless it is to be lazy, verifies that it answers.
type Opener func(ctx context.Context, url string, o Options) (Backend, error)

var drivers = registry.New[Opener]("backends", "result backend", "redis://localhost:6379/1")

// Register makes a driver available under URL schemes. Drivers call it from init; a scheme registered twice panics.
func Register(open Opener, schemes ...string) { drivers.Register(open, schemes...) }

// Open connects to a result backend by URL. The driver's package must be imported:
//
//	import _ "github.com/gelery/gelery/backends/redis"
func Open(ctx context.Context, url string, o Options) (Backend, error) {
	open, err := drivers.Find(url)
	if err != nil {
		return nil, err
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Serializer == "" {
		o.Serializer = "json"
	}
	return open(ctx, url, o)
}

// Schemes lists the registered URL schemes, sorted.
func Schemes() []string { return drivers.Schemes() }
