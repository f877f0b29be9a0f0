package memory

import (
	"context"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

var (
	_ backends.GroupKeeper = (*Backend)(nil)
	_ backends.Claimer     = (*Backend)(nil)
)

// SaveGroup is backends.GroupKeeper's.
func (b *Backend) SaveGroup(_ context.Context, group *protocol.ResultTuple) error {
	s, err := b.opened()
	if err != nil {
		return err
	}
	document, err := b.codec.AppendGroup(nil, group)
	if err != nil {
		return err
	}
	now, expires := b.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[group.ID] = keeping{string(document), expires}
	s.sweep(now)
	return nil
}

// LoadGroup is backends.GroupKeeper's.
func (b *Backend) LoadGroup(_ context.Context, id string) (*protocol.ResultTuple, error) {
	s, err := b.opened()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	group, ok := s.groups[id]
	s.mu.Unlock()
	if !ok || group.expired(time.Now()) {
		return nil, nil // there is none
	}
	return b.codec.DecodeGroup(id, []byte(group.text))
}

// ForgetGroup is backends.GroupKeeper's.
func (b *Backend) ForgetGroup(_ context.Context, id string) error {
	s, err := b.opened()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.groups, id)
	return nil
}

// Claim is backends.Claimer's.
func (b *Backend) Claim(_ context.Context, name, holder string) (bool, error) {
	s, err := b.opened()
	if err != nil {
		return false, err
	}
	now, expires := b.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	claim, ok := s.claims[name]
	if !ok || claim.expired(now) {
		claim = keeping{holder, markExpires(now, expires)}
		s.claims[name] = claim
		s.sweep(now)
	}
	return claim.text == holder, nil
}
