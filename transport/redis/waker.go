package redis

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
)

const (
	maxWaiters  = 16 // lists watched by a connection of their own; with more, only the queues' first lists are
	waiterBlock = 5 * time.Second
	pollWatched = time.Second            // how often to look anyway when every list is watched
	pollFastest = 10 * time.Millisecond  // unwatched lists: first look after they were found empty …
	pollSlowest = 250 * time.Millisecond // … and the longest pause between looks
)

// waker tells Receive when an empty queue may have something. It never pops: each waiter blocks in BLMOVE of a list's
// last element onto itself, which changes nothing, so a waiter that dies takes nothing with it. Lists beyond maxWaiters,
// and servers that refuse BLMOVE (before Redis 6.2, or at maxmemory), are polled.
type waker struct {
	client  goredis.UniversalClient
	waiters []*waiter
	woken   chan struct{} // capacity 1
	all     bool          // every list has a waiter
	blind   atomic.Int32  // how many waiters cannot wait: with any, Receive polls
	pause   time.Duration // Receive's own: current polling pause

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

type waiter struct {
	list  string
	arm   chan struct{} // capacity 1
	blind bool          // its own
}

func newWaker(t *redisTransport, queues []string) *waker {
	w := &waker{woken: make(chan struct{}, 1), all: true}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	steps := t.keys.steps
	if len(queues)*len(steps) > maxWaiters {
		steps, w.all = steps[:1], false
	}
	for _, step := range steps {
		for _, q := range queues {
			if len(w.waiters) < maxWaiters {
				w.waiters = append(w.waiters, &waiter{list: t.keys.list(q, step), arm: make(chan struct{}, 1)})
			}
		}
	}
	w.client = t.conn.Client(redisconn.ClientOptions{PoolSize: len(w.waiters), ReadTimeout: waiterBlock + 5*time.Second, Blocking: true})
	for _, x := range w.waiters {
		w.wg.Go(func() { w.watch(x) })
	}
	return w
}

// wait returns when a list may have something, when it is time to look anyway, or when ctx or the waker is done.
// Receive calls it after a claim found nothing.
func (w *waker) wait(ctx context.Context) {
	for _, x := range w.waiters {
		select {
		case x.arm <- struct{}{}:
		default: // still waiting since last time
		}
	}
	pause := pollWatched
	if !w.all || w.blind.Load() > 0 {
		w.pause = min(max(2*w.pause, pollFastest), pollSlowest)
		pause = w.pause
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-w.woken:
		w.pause = 0
	case <-timer.C:
	case <-ctx.Done():
	case <-w.ctx.Done():
	}
}

// watch waits for one list, each time it is armed, and wakes Receive once.
func (w *waker) watch(x *waiter) {
	for {
		select {
		case <-x.arm:
		case <-w.ctx.Done():
			return
		}
		for w.ctx.Err() == nil {
			err := w.client.BLMove(w.ctx, x.list, x.list, "RIGHT", "RIGHT", waiterBlock).Err()
			if errors.Is(err, goredis.Nil) {
				w.sees(x, true)
				continue
			}
			w.sees(x, err == nil)
			if err == nil {
				select {
				case w.woken <- struct{}{}:
				default:
				}
			}
			break // Receive looks, and arms again if it found nothing
		}
	}
}

// sees notes whether a waiter can wait.
func (w *waker) sees(x *waiter, can bool) {
	if x.blind == can {
		x.blind = !can
		w.blind.Add(map[bool]int32{true: -1, false: 1}[can])
	}
}

// close ends the waiters. Closing the client is what ends a blocked read at once.
func (w *waker) close() {
	w.cancel()
	_ = w.client.Close()
	w.wg.Wait()
}
