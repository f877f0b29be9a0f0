// Package memory is a result backend inside the process, for tests and for programs that are client and worker in one.
// Importing it makes memory:// known to backends.Open.
package memory

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/brokerurl"
	"github.com/gelery/gelery/protocol"
)

func init() { backends.Register(Open, "memory") }

const defaultExpires = 24 * time.Hour

// stores are the open stores by name.
var (
	storesMu sync.Mutex
	stores   = map[string]*store{}
)

// store is what all backends of one name share.
type store struct {
	name string
	open int // backends; guarded by storesMu

	mu       sync.Mutex
	records  map[string]record
	sweepAt  int // number of records at which the expired ones are thrown out
	watchers map[string][]*backends.Inbox

	chords map[string]*chord  // by group
	groups map[string]keeping // GroupResult.save: the documents
	claims map[string]keeping // the holders
}

// keeping is a text until it expires.
type keeping struct {
	text    string
	expires time.Time // zero: never
}

func (k keeping) expired(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

type record struct {
	keeping
	success bool
}

// Backend is an open in-process result backend.
type Backend struct {
	codec   backends.Codec
	expires time.Duration

	mu       sync.Mutex
	store    *store // nil: closed
	watching map[*backends.Inbox]struct{}
}

// Open opens the store of a name, memory://name; memory:// has the empty name. All backends open under one name share
// one store; it is gone when the last of them is closed. There are no transport options.
func Open(_ context.Context, url string, o backends.Options) (backends.Backend, error) {
	urls, err := brokerurl.Parse(url)
	if err != nil {
		return nil, fmt.Errorf("result backend: %w", err)
	}
	for name := range o.TransportOptions {
		return nil, fmt.Errorf("transport option %q is unknown for memory, which has none", name)
	}
	codec, err := backends.NewCodec(o)
	if err != nil {
		return nil, err
	}
	b := &Backend{codec: codec, expires: o.Expires, watching: map[*backends.Inbox]struct{}{}}
	if b.expires == 0 {
		b.expires = defaultExpires
	}
	name := urls[0].Host + "/" + urls[0].Path
	storesMu.Lock()
	defer storesMu.Unlock()
	b.store = stores[name]
	if b.store == nil {
		b.store = &store{name: name, records: map[string]record{}, watchers: map[string][]*backends.Inbox{}, sweepAt: 1024,
			chords: map[string]*chord{}, groups: map[string]keeping{}, claims: map[string]keeping{}}
		stores[name] = b.store
	}
	b.store.open++
	return b, nil
}

func (b *Backend) opened() (*store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store == nil {
		return nil, backends.ErrClosed
	}
	return b.store, nil
}

// Store is backends.Backend's.
func (b *Backend) Store(_ context.Context, batch []*protocol.ResultMeta) error {
	s, err := b.opened()
	if err != nil {
		return err
	}
	texts := make([]string, len(batch))
	for i, m := range batch {
		document, err := b.codec.Append(nil, m)
		if err != nil {
			return err
		}
		texts[i] = string(document)
	}
	now, expires := b.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, m := range batch {
		if old, ok := s.records[m.TaskID]; ok && old.success && !old.expired(now) {
			continue
		}
		s.records[m.TaskID] = record{keeping{texts[i], expires}, m.Status == protocol.Success}
		for _, in := range s.watchers[m.TaskID] {
			in.Put(m.TaskID, texts[i])
		}
	}
	s.sweep(now)
	return nil
}

// now is the time, and that at which what is stored now expires.
func (b *Backend) now() (now, expires time.Time) {
	now = time.Now()
	if b.expires > 0 {
		expires = now.Add(b.expires)
	}
	return now, expires
}

// markExpires is when marks of chords and claims go: with results, but not never, because nobody forgets them.
func markExpires(now, expires time.Time) time.Time {
	if expires.IsZero() {
		return now.Add(24 * time.Hour)
	}
	return expires
}

// sweep throws out what has expired, whenever there is twice as much as the last sweep left. The mutex is held.
func (s *store) sweep(now time.Time) {
	if s.size() < s.sweepAt {
		return
	}
	throwOut(s.records, now)
	throwOut(s.chords, now)
	throwOut(s.groups, now)
	throwOut(s.claims, now)
	s.sweepAt = max(1024, 2*s.size())
}

func (s *store) size() int { return len(s.records) + len(s.chords) + len(s.groups) + len(s.claims) }

func throwOut[T interface{ expired(time.Time) bool }](m map[string]T, now time.Time) {
	for id, x := range m {
		if x.expired(now) {
			delete(m, id)
		}
	}
}

// lookup reads a record. The mutex is held.
func (s *store) lookup(id string) (string, bool) {
	r, ok := s.records[id]
	if ok && r.expired(time.Now()) {
		delete(s.records, id)
		ok = false
	}
	return r.text, ok
}

// Get is backends.Backend's.
func (b *Backend) Get(ctx context.Context, id string) (*protocol.ResultMeta, error) {
	metas, err := b.GetMany(ctx, id)
	if err != nil {
		return nil, err
	}
	return metas[0], nil
}

// GetMany is backends.Backend's.
func (b *Backend) GetMany(_ context.Context, ids ...string) ([]*protocol.ResultMeta, error) {
	s, err := b.opened()
	if err != nil {
		return nil, err
	}
	texts := make([]string, len(ids))
	s.mu.Lock()
	for i, id := range ids {
		texts[i], _ = s.lookup(id)
	}
	s.mu.Unlock()
	metas := make([]*protocol.ResultMeta, len(ids))
	for i, id := range ids {
		if texts[i] == "" {
			metas[i] = backends.Pending(id)
		} else if metas[i], err = b.codec.Decode(id, []byte(texts[i])); err != nil {
			return nil, err
		}
	}
	return metas, nil
}

// Watch is backends.Backend's.
func (b *Backend) Watch(ctx context.Context, ids ...string) iter.Seq2[*protocol.ResultMeta, error] {
	return func(yield func(*protocol.ResultMeta, error) bool) {
		in, ids := backends.NewInbox(ids)
		s, err := b.watch(in)
		if err != nil {
			yield(nil, err)
			return
		}
		s.join(in, ids)
		defer func() {
			s.leave(in, ids...)
			b.mu.Lock()
			delete(b.watching, in)
			b.mu.Unlock()
		}()
		in.Run(ctx, b.codec, func(id string) { s.leave(in, id) }, yield)
	}
}

func (b *Backend) watch(in *backends.Inbox) (*store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store == nil {
		return nil, backends.ErrClosed
	}
	b.watching[in] = struct{}{}
	return b.store, nil
}

func (s *store) join(in *backends.Inbox, ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		s.watchers[id] = append(s.watchers[id], in)
		if text, ok := s.lookup(id); ok {
			in.Put(id, text)
		} else {
			in.PutAbsent(id)
		}
	}
}

func (s *store) leave(in *backends.Inbox, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		list := s.watchers[id]
		for i, other := range list {
			if other == in {
				list[i], list[len(list)-1] = list[len(list)-1], nil
				s.watchers[id] = list[:len(list)-1]
				break
			}
		}
		if len(s.watchers[id]) == 0 {
			delete(s.watchers, id)
		}
	}
}

// Forget is backends.Backend's.
func (b *Backend) Forget(_ context.Context, ids ...string) error {
	s, err := b.opened()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.records, id)
	}
	return nil
}

// Close closes this backend. Watches still running end with an error.
func (b *Backend) Close() error {
	b.mu.Lock()
	s := b.store
	b.store = nil
	for in := range b.watching {
		in.Fail(backends.ErrClosed)
	}
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	storesMu.Lock()
	defer storesMu.Unlock()
	if s.open--; s.open == 0 {
		delete(stores, s.name)
	}
	return nil
}
