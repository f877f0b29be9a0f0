package transport

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// Options are what a driver may be told beside the URL: Celery's broker_transport_options, and where to log.
type Options struct {
	// TransportOptions are kombu's transport options by their own names ("visibility_timeout", "global_keyprefix",
	// "priority_steps", "master_name", …). A driver refuses a name it does not know and a value it cannot use.
	TransportOptions map[string]any
	// Logger receives what a driver does on its own: reconnects, restores, quarantine. Default slog.Default().
	Logger *slog.Logger
}

// Opener connects to the broker at a URL. It verifies that the broker answers before it returns.
type Opener func(ctx context.Context, url string, o Options) (Transport, error)

var (
	openersMu sync.RWMutex
	openers   = map[string]Opener{}
)

// Register makes a driver available under URL schemes. Drivers call it from init; a scheme registered twice panics.
func Register(open Opener, schemes ...string) {
	openersMu.Lock()
	defer openersMu.Unlock()
	for _, s := range schemes {
		if _, dup := openers[s]; dup {
			panic("transport: scheme " + s + " registered twice")
		}
		openers[s] = open
	}
}

// Open connects to a broker by URL, kombu's forms included: a list of URLs separated by ";" is a failover list and is
// handed to the driver whole. The driver's package must be imported:
//
//	import _ "github.com/gelery/gelery/transport/redis"
func Open(ctx context.Context, url string, o Options) (Transport, error) {
	scheme, _, ok := strings.Cut(url, "://")
	if !ok {
		return nil, fmt.Errorf("broker URL %q has no scheme; expected for example redis://localhost:6379/0", url)
	}
	openersMu.RLock()
	open := openers[scheme]
	openersMu.RUnlock()
	if open == nil {
		return nil, fmt.Errorf("broker URL scheme %q is unknown; known here: %s (is the driver's package imported?)",
			scheme, strings.Join(Schemes(), ", "))
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return open(ctx, url, o)
}

// Schemes lists the registered URL schemes, sorted.
func Schemes() []string {
	openersMu.RLock()
	defer openersMu.RUnlock()
	names := make([]string, 0, len(openers))
	for s := range openers {
		names = append(names, s)
	}
	slices.Sort(names)
	return names
}
