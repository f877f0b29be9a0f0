// Package registry finds a driver by the scheme of a URL, so that a room can open what it does not import.
package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/gelery/gelery/internal/brokerurl"
)

// Registry holds one opener for each URL scheme. O is the type of the room's openers.
type Registry[O any] struct {
	room, what, example string

	mu      sync.RWMutex
	openers map[string]O
}

// New makes an empty registry. The words are for its errors: the package that registers ("transport"), what its URLs
// are of ("broker"), and a URL as it should be.
func New[O any](room, what, example string) *Registry[O] {
	return &Registry[O]{room: room, what: what, example: example, openers: map[string]O{}}
}

// Register makes an opener available under URL schemes. A scheme registered twice panics.
func (r *Registry[O]) Register(open O, schemes ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range schemes {
		if _, dup := r.openers[s]; dup {
			panic(r.room + ": scheme " + s + " registered twice")
		}
		r.openers[s] = open
	}
}

// Find returns the opener for a URL, or for a failover list by its first one. The errors show no password.
func (r *Registry[O]) Find(url string) (O, error) {
	scheme, _, ok := strings.Cut(url, "://")
	r.mu.RLock()
	open, known := r.openers[scheme]
	r.mu.RUnlock()
	switch {
	case !ok:
		return open, fmt.Errorf("%s URL %q has no scheme; expected for example %s", r.what, redactBare(url), r.example)
	case !known:
		return open, fmt.Errorf("%s URL scheme %q is unknown; known here: %s (is the driver's package imported?)",
			r.what, redactBare(scheme), strings.Join(r.Schemes(), ", "))
	}
	return open, nil
}

// redactBare takes the password out of a URL that lost its scheme, by lending it one.
func redactBare(url string) string {
	const lent = "scheme://"
	return strings.TrimPrefix(brokerurl.Redact(lent+url), lent)
}

// Schemes lists the registered URL schemes, sorted.
func (r *Registry[O]) Schemes() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.openers))
}
