package rabbitmq

import (
	"context"
	"sync"
)

// maxKnown bounds what is remembered of the broker. What falls out is asked for again.
const maxKnown = 10_000

// known is a set of names that exist at the broker, as far as one session knows. Entities may be gone after a restart.
type known struct {
	mu      sync.Mutex
	session *session
	names   map[string]bool
	forgot  uint64 // how often something was forgotten
}

// once runs f unless it has succeeded for this name in the present session.
func (k *known) once(ctx context.Context, l *link, name string, f func() error) error {
	s, err := l.await(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	if k.session != s || len(k.names) >= maxKnown {
		k.session, k.names = s, map[string]bool{}
	}
	done, forgot := k.names[name], k.forgot
	k.mu.Unlock()
	if done {
		return nil
	}
	if err := f(); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session == s && k.forgot == forgot { // else it may have been about what was there before
		k.names[name] = true
	}
	return nil
}

// forget makes once ask again.
func (k *known) forget(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forgot++
	delete(k.names, name)
}
