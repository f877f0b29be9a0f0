// Package redbeat is RedBeat's store of a schedule in Redis: the same keys, the same documents and the same lock, so that Python's
// beat with RedBeat and Gelery's take over from each other at any time, and what manages the schedule of one manages the other's.
//
// What RedBeat has no words for is in keys of our own: see keys.go. An entry that it cannot run as it is meant (a canvas, a plain
// cron line, a solar event, one moment, a crontab of another time zone, an end) is one that it leaves alone.
package redbeat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/scheduler"
)

// Config says where a schedule is. Only URL is needed.
type Config struct {
	URL     string         // redis://…: Celery's redbeat_redis_url
	Options map[string]any // transport options, as of the broker: Celery's redbeat_redis_options

	// Prefix is in front of all keys. "": "redbeat:". Celery's redbeat_key_prefix.
	Prefix string
	// LockKey is the key of the lock, to which the prefix is added if it does not begin with it. "": ":lock" after the prefix,
	// "redbeat::lock". Celery's redbeat_lock_key.
	LockKey string
	// NoLock is for a beat that is the only one: Celery's redbeat_lock_key = None. If there are others, a moment is still sent by
	// one of them.
	NoLock bool
	// LockTimeout is after which time the lock of a beat that has died is free; it is renewed every third of it. 0: 6 s, from 1 s
	// to a day. Celery's redbeat_lock_timeout, whose default is 1500 s.
	LockTimeout time.Duration

	// Zone is where the clock stands by which Python reads crontabs: Celery's timezone. nil: UTC.
	Zone *time.Location

	// Static are the entries of beat_schedule: whoever begins to lead stores them, and removes those that another leader or RedBeat
	// stored before and that are no longer among them. nil leaves them alone.
	Static []*scheduler.Entry
	// Unreadable are the names of entries of beat_schedule that have a mistake. What was stored of them before stays as it is.
	Unreadable []string

	Logger *slog.Logger // nil: slog's default
}

// Defaults of a [Config].
const (
	DefaultPrefix      = "redbeat:"
	DefaultLockTimeout = 6 * time.Second
)

// Store is a schedule in Redis.
type Store struct {
	config Config
	keys   keys
	client redis.UniversalClient
	log    *slog.Logger
	codec  codec

	mu  sync.Mutex
	led bool // this store has led, has looked for what is in the future, and has seen no Python leading since
}

// Open connects to Redis. It tries until Redis answers or ctx is done.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.URL == "" {
		return nil, errors.New("redbeat: URL (redbeat_redis_url) is empty")
	}
	switch {
	case c.LockTimeout == 0:
		c.LockTimeout = DefaultLockTimeout
	case c.LockTimeout < time.Second || c.LockTimeout > 24*time.Hour:
		return nil, fmt.Errorf("redbeat: LockTimeout (redbeat_lock_timeout) is %v; it is 1 s to a day", c.LockTimeout)
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	if c.LockKey == "" {
		c.LockKey = c.Prefix + ":lock"
	}
	if !strings.HasPrefix(c.LockKey, c.Prefix) {
		c.LockKey = c.Prefix + c.LockKey
	}
	if c.Zone == nil {
		c.Zone = time.UTC
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	server, err := redisconn.Parse(c.URL, c.Options)
	if err != nil {
		return nil, fmt.Errorf("redbeat: %w", err)
	}
	s := &Store{config: c, keys: keysOf(c.Prefix), log: c.Logger, codec: codec{zone: c.Zone},
		client: server.Client(redisconn.ClientOptions{ReadTimeout: requestTimeout})}
	err = redisconn.Do(ctx, s.log, "connect", func(ctx context.Context) error { return s.client.Ping(ctx).Err() })
	if err != nil {
		_ = s.client.Close()
		return nil, fmt.Errorf("redbeat: %w", err)
	}
	return s, nil
}

// requestTimeout is how long one answer of Redis may take.
const requestTimeout = 5 * time.Second

// Close closes the connections. A lease is released before.
func (s *Store) Close() error { return s.client.Close() }

var _ scheduler.Store = (*Store)(nil)
