package redbeat

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// standbyInterval is how often a standby asks for the lock.
const standbyInterval = time.Second

// tokenPrefix tells locks of Gelery's from those of Python, which are hexadecimal.
const tokenPrefix = "gelery:"

// Lead is [scheduler.Store]'s: it waits until RedBeat's lock is free. While a Python beat leads that is its lock, whose timeout may be
// long. Then it stores the static entries, so that those of a standby change nothing, and those of a leader are back when Redis has
// lost them. One that cannot be stored is logged and keeps none of the others back.
func (s *Store) Lead(ctx context.Context) (scheduler.Lease, error) {
	token := newToken()
	if s.config.NoLock {
		return s.begin(ctx, newLease(s, token))
	}
	for told := ""; ; {
		asked := time.Now()
		owner, err := s.tryLock(ctx, token)
		if err != nil {
			return nil, fmt.Errorf("redbeat: lock %s: %w", s.config.LockKey, err)
		}
		if owner == "" {
			l := newLease(s, token)
			l.hold(asked)
			return s.begin(ctx, l)
		}
		s.mu.Lock()
		s.led = s.led && strings.HasPrefix(owner, tokenPrefix) // what Python did is not known
		s.mu.Unlock()
		if owner != told {
			told = owner
			s.log.Info("beat: another one leads; standing by", "lock", s.config.LockKey, "owner", owner)
		}
		timer := time.NewTimer(standbyInterval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
	}
}

// begin stores the static entries by a lease that was just taken. If that fails it is given back.
func (s *Store) begin(ctx context.Context, l *lease) (scheduler.Lease, error) {
	err := s.putStatic(ctx, &l.lock)
	if err == nil || errors.Is(err, scheduler.ErrNotLeading) { // it finds out itself that it is lost
		return l, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	_ = l.Release(ctx) // or it ends by itself
	return nil, fmt.Errorf("redbeat: beat_schedule: %w", err)
}

// newToken names the lock's owner for who looks into Redis, as gelery:host:pid:random.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	host, _ := os.Hostname()
	return fmt.Sprintf("%s%.60s:%d:%s", tokenPrefix, host, os.Getpid(), hex.EncodeToString(b[:]))
}

// tryLock takes the lock, or tells whose it is.
func (s *Store) tryLock(ctx context.Context, token string) (owner string, err error) {
	reply, err := leadScript.Run(ctx, s.client, []string{s.config.LockKey}, token, s.config.LockTimeout.Milliseconds()).Slice()
	if err != nil {
		return "", err
	}
	if len(reply) == 2 {
		return fmt.Sprint(reply[1]), nil
	}
	return "", nil
}

// lock is a lock that is held, and renewed by a goroutine of its own.
type lock struct {
	store *Store
	token string        // "": there is no lock
	lost  chan struct{} // closed when it is lost
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// hold renews the lock from now on; it was asked for at some time.
func (l *lock) hold(asked time.Time) {
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	l.ended.Go(func() { l.renew(ctx, asked) })
}

// renewRetry is the pause after a renewal that failed.
const renewRetry = 100 * time.Millisecond

// renew makes the lock last anew every third of its timeout. It is lost when it is not ours, or when the timeout has passed since the
// last renewal that was confirmed was asked for: Redis counts from later on.
func (l *lock) renew(ctx context.Context, confirmed time.Time) {
	timeout := l.store.config.LockTimeout
	wait := timeout / 3
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		asked := time.Now()
		end := confirmed.Add(timeout)
		if !asked.Before(end) {
			close(l.lost)
			return
		}
		asking, cancel := context.WithDeadline(ctx, end)
		ours, err := extendScript.Run(asking, l.store.client, []string{l.store.config.LockKey}, l.token, timeout.Milliseconds()).Bool()
		cancel()
		switch {
		case err == nil && !ours:
			close(l.lost)
			return
		case err == nil:
			confirmed, wait = asked, timeout/3
		default:
			wait = min(renewRetry, time.Until(end))
		}
	}
}

func (l *lock) isLost() bool {
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

// Lost is [scheduler.Lease]'s.
func (l *lock) Lost() <-chan struct{} { return l.lost }

// Release is [scheduler.Lease]'s.
func (l *lock) Release(ctx context.Context) error {
	if l.token == "" {
		return nil
	}
	l.stop()
	l.ended.Wait()
	given, err := releaseScript.Run(ctx, l.store.client, []string{l.store.config.LockKey}, l.token).Bool()
	switch {
	case err != nil:
		return fmt.Errorf("redbeat: lock %s: %w", l.store.config.LockKey, err)
	case !given:
		return scheduler.ErrNotLeading
	}
	return nil
}
