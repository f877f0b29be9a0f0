package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/redisconn"
)

// pingAfter and deadAfter are how long the connection may be silent before it is asked and before it is given up.
const (
	pingAfter = 10 * time.Second
	deadAfter = 25 * time.Second
)

// listener hears of stored results for every Watch of a backend over one connection. It has three goroutines from the
// first Watch to close:
//
//	steer  subscribes and unsubscribes as topics come and go, and watches over the connection
//	read   hands what is published to the inboxes
//	fetch  reads what was stored before the subscription
//
// One rule makes it miss nothing: whenever Redis confirms a subscription, the first or one after a reconnect, the
// stored document is fetched. Whatever is stored earlier is in the fetched document, whatever is stored later is
// published to the subscription.
type listener struct {
	b       *Backend
	ctx     context.Context // ends with close
	stop    context.CancelFunc
	start   sync.Once
	running sync.WaitGroup
	steerCh chan struct{} // one token: dirty has something
	fetchCh chan struct{} // one token: fetches has something

	mu        sync.Mutex
	closed    bool
	topics    map[string]*topic   // by channel, those with inboxes
	dirty     map[string]struct{} // channels that steer must look at
	confirmed map[string]struct{} // channels subscribed to, as far as Redis has said
	fetches   map[string]struct{} // channels to fetch
	sent      map[string]struct{} // channels that pubsub has been told to subscribe to
	pubsub    *redis.PubSub
	heard     time.Time // last sign of life
}

// topic is one task and who waits for it.
type topic struct {
	id      string
	inboxes []*backends.Inbox
	pushes  uint64 // published documents so far
}

func newListener(b *Backend) *listener {
	l := &listener{
		b:         b,
		steerCh:   make(chan struct{}, 1),
		fetchCh:   make(chan struct{}, 1),
		topics:    map[string]*topic{},
		dirty:     map[string]struct{}{},
		confirmed: map[string]struct{}{},
		fetches:   map[string]struct{}{},
		sent:      map[string]struct{}{},
	}
	l.ctx, l.stop = context.WithCancel(context.Background())
	return l
}

// join makes an inbox hear of tasks.
func (l *listener) join(in *backends.Inbox, ids []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return backends.ErrClosed
	}
	l.start.Do(func() {
		l.pubsub = l.b.client.Subscribe(l.ctx)
		l.heard = time.Now()
		l.running.Go(l.read)
		l.running.Go(l.steer)
		l.running.Go(l.fetch)
	})
	for _, id := range ids {
		channel := l.b.key(id)
		t := l.topics[channel]
		if t == nil {
			t = &topic{id: id}
			l.topics[channel] = t
		}
		t.inboxes = append(t.inboxes, in)
		if _, ok := l.confirmed[channel]; ok {
			l.needFetch(channel)
		}
		l.dirty[channel] = struct{}{}
	}
	signal(l.steerCh)
	return nil
}

// leave makes an inbox hear no more of tasks. Leaving twice does nothing.
func (l *listener) leave(in *backends.Inbox, ids ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		channel := l.b.key(id)
		t := l.topics[channel]
		if t == nil {
			continue
		}
		for i, other := range t.inboxes {
			if other == in {
				last := len(t.inboxes) - 1
				t.inboxes[i], t.inboxes[last] = t.inboxes[last], nil
				t.inboxes = t.inboxes[:last]
				break
			}
		}
		if len(t.inboxes) == 0 {
			delete(l.topics, channel)
			delete(l.fetches, channel)
			delete(l.dirty, channel)
			if _, ok := l.sent[channel]; ok {
				l.dirty[channel] = struct{}{}
				signal(l.steerCh)
			}
		}
	}
}

func (l *listener) close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return
	}
	l.closed = true
	l.fail(backends.ErrClosed)
	l.stop()
	pubsub := l.pubsub
	l.mu.Unlock()
	if pubsub != nil {
		_ = pubsub.Close() // which ends a pending read
	}
	l.running.Wait()
}

// fail ends every Watch. The mutex is held.
func (l *listener) fail(err error) {
	for _, t := range l.topics {
		for _, in := range t.inboxes {
			in.Fail(err)
		}
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// needFetch puts a channel on fetch's list. The mutex is held.
func (l *listener) needFetch(channel string) {
	l.fetches[channel] = struct{}{}
	signal(l.fetchCh)
}

// steer keeps the subscriptions in step with the topics, and the connection alive.
func (l *listener) steer() {
	tick := time.NewTicker(pingAfter / 2)
	defer tick.Stop()
	var backoff redisconn.Backoff
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.steerCh:
			if l.subscribe() == nil {
				backoff.Reset()
				continue
			}
			// read reports the trouble; it sees the same connection.
			if backoff.Wait(l.ctx) == nil {
				signal(l.steerCh)
			}
		case <-tick.C:
			l.checkAlive()
		}
	}
}

// subscribe brings the dirty channels in order: subscribed to if somebody waits, else not.
func (l *listener) subscribe() error {
	var add, drop []string
	l.mu.Lock()
	pubsub := l.pubsub
	for channel := range l.dirty {
		_, want := l.topics[channel]
		_, have := l.sent[channel]
		switch {
		case want && !have:
			l.sent[channel] = struct{}{}
			add = append(add, channel)
		case have && !want:
			delete(l.sent, channel)
			drop = append(drop, channel)
		}
	}
	clear(l.dirty)
	l.mu.Unlock()

	if len(drop) > 0 {
		// If it fails the connection is gone, and pubsub does not take these to the next one.
		_ = pubsub.Unsubscribe(l.ctx, drop...)
	}
	for len(add) > 0 {
		n := min(len(add), batchKeys)
		if err := pubsub.Subscribe(l.ctx, add[:n]...); err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, channel := range add {
				delete(l.sent, channel)
				l.dirty[channel] = struct{}{}
			}
			return err
		}
		add = add[n:]
	}
	return nil
}

// checkAlive asks a silent connection for a sign of life and replaces one that gave none. Reads have no deadline of
// their own because one that strikes in the middle of a long document would spoil the connection.
func (l *listener) checkAlive() {
	l.mu.Lock()
	pubsub, silent := l.pubsub, time.Since(l.heard)
	if silent < deadAfter || l.closed {
		l.mu.Unlock()
		if silent >= pingAfter {
			ctx, cancel := context.WithTimeout(l.ctx, pingAfter/2)
			defer cancel()
			_ = pubsub.Ping(ctx) // the answer, or its absence, is what counts
		}
		return
	}
	l.pubsub = l.b.client.Subscribe(l.ctx)
	l.heard = time.Now()
	clear(l.sent)
	clear(l.confirmed)
	for channel := range l.topics {
		l.dirty[channel] = struct{}{}
	}
	signal(l.steerCh)
	l.mu.Unlock()
	l.b.log.Warn("result backend is silent, connecting anew", "silent", silent)
	_ = pubsub.Close() // read goes on with the new one
}

// read takes what Redis sends until close.
func (l *listener) read() {
	var backoff redisconn.Backoff
	lost := false
	for {
		l.mu.Lock()
		pubsub := l.pubsub
		l.mu.Unlock()
		message, err := pubsub.Receive(l.ctx)
		if l.ctx.Err() != nil {
			return
		}
		if err != nil {
			// pubsub connects anew and subscribes again by itself, at the latest when next read.
			l.noteLoss(err)
			if !lost {
				lost = true
				l.b.log.Warn("result backend is lost, connecting anew", "error", err)
			}
			_ = backoff.Wait(l.ctx) // the loop sees to the context
			continue
		}
		if lost {
			lost = false
			l.b.log.Info("result backend is back")
		}
		backoff.Reset()
		l.note(message)
	}
}

func (l *listener) noteLoss(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
	clear(l.confirmed)
	if redisconn.Classify(err) == redisconn.Fatal && !errors.Is(err, redis.ErrClosed) {
		l.fail(fmt.Errorf("listen for results: %w", err))
	}
}

func (l *listener) note(message any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = time.Now()
	switch m := message.(type) {
	case *redis.Message:
		if t := l.topics[m.Channel]; t != nil {
			t.pushes++
			for _, in := range t.inboxes {
				in.Put(t.id, m.Payload)
			}
		}
	case *redis.Subscription:
		if m.Kind != "subscribe" {
			delete(l.confirmed, m.Channel)
			return
		}
		l.confirmed[m.Channel] = struct{}{}
		if _, ok := l.topics[m.Channel]; ok {
			l.needFetch(m.Channel)
		}
	}
}

// fetched is a channel on its way through one MGET.
type fetched struct {
	channel string
	topic   *topic
	pushes  uint64
}

// fetch reads the stored documents of the channels on its list, up to 500 at a time.
func (l *listener) fetch() {
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.fetchCh:
		}
		for wanted := l.takeFetches(); len(wanted) > 0; wanted = l.takeFetches() {
			keys := make([]string, len(wanted))
			for i, w := range wanted {
				keys[i] = w.channel
			}
			var values []any
			err := redisconn.Do(l.ctx, l.b.log, "fetch results", func(ctx context.Context) (err error) {
				values, err = l.b.client.MGet(ctx, keys...).Result()
				return err
			})
			if l.ctx.Err() != nil {
				return
			}
			l.deliver(wanted, values, err)
		}
	}
}

func (l *listener) takeFetches() []fetched {
	l.mu.Lock()
	defer l.mu.Unlock()
	wanted := make([]fetched, 0, min(len(l.fetches), batchKeys))
	for channel := range l.fetches {
		if len(wanted) == batchKeys {
			break
		}
		t := l.topics[channel]
		wanted = append(wanted, fetched{channel, t, t.pushes})
		delete(l.fetches, channel)
	}
	return wanted
}

// deliver puts fetched documents into the inboxes, except where something was published meanwhile: that is as new or
// newer, and an older document must not come after it.
func (l *listener) deliver(wanted []fetched, values []any, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, w := range wanted {
		if l.topics[w.channel] != w.topic || w.topic.pushes != w.pushes {
			continue
		}
		for _, in := range w.topic.inboxes {
			if err != nil {
				in.Fail(err)
			} else if text, ok := values[i].(string); ok {
				in.Put(w.topic.id, text)
			} else {
				in.PutAbsent(w.topic.id)
			}
		}
	}
}
