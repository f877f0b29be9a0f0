// Package redis is the Redis transport: kombu's keys, envelopes and priorities, shared with Python workers, but with a
// receive that cannot lose a message and leases that tell a dead Go worker from a busy one.
//
// Import it for its side effect, the URL schemes redis, rediss, redis+socket and sentinel:
//
//	import _ "github.com/gelery/gelery/transport/redis"
package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisconn"
	"github.com/gelery/gelery/transport"
)

func init() { transport.Register(open, "redis", "rediss", "redis+socket", "sentinel") }

// redisTransport is a connection to one Redis database. Commands that answer at once share one pool of connections;
// what blocks (wake-up waits, subscriptions) has connections of its own.
type redisTransport struct {
	conn      *redisconn.Config
	keys      keys
	options   options
	log       *slog.Logger
	commands  goredis.UniversalClient
	publishes goredis.UniversalClient // of the publisher, who has one call under way
	bindings  *bindings
	publisher *publisher

	closeOnce sync.Once
}

// options are the transport options this driver understands beside those of the connection.
type options struct {
	// visibilityTimeout: a claim of a Python worker older than this is restored by our sweep. Default 1 hour.
	visibilityTimeout time.Duration
	// lease: a claim of a Go worker that was not renewed for this long belongs to a dead worker. Default 15 s.
	lease time.Duration
	// sweepInterval: how often a consumer looks for dead claims. Default 5 s.
	sweepInterval time.Duration
	// strategy: in which order the queues of a priority step are served. Default roundRobin.
	strategy string
}

// knownOptions are kombu's names, and gelery_lease and gelery_sweep_interval, which are ours. The ignored ones have no
// meaning here and are accepted so that one set of transport options serves both languages.
var knownOptions = []string{
	"visibility_timeout", "global_keyprefix", "sep", "priority_steps", "unacked_key", "unacked_index_key",
	"fanout_prefix", "fanout_patterns", "queue_order_strategy", "gelery_lease", "gelery_sweep_interval",
	// ignored
	"unacked_mutex_key", "unacked_mutex_expire", "unacked_restore_limit", "unacked_restore_interval",
	"unacked_restore_throttle", "polling_interval", "ack_emulation", "body_encoding",
}

func open(ctx context.Context, url string, o transport.Options) (transport.Transport, error) {
	conn, err := redisconn.Parse(url, o.TransportOptions, knownOptions...)
	if err != nil {
		return nil, err
	}
	t := &redisTransport{conn: conn, log: o.Logger}
	if err := t.configure(o.TransportOptions); err != nil {
		return nil, err
	}
	t.bindings = &bindings{t: t}
	t.commands = conn.Client(redisconn.ClientOptions{PoolSize: 16})
	t.publishes = conn.Client(redisconn.ClientOptions{PoolSize: 1, Spin: true})
	if err := redisconn.Do(ctx, t.log, "connect", func(ctx context.Context) error {
		return t.commands.Ping(ctx).Err()
	}); err != nil {
		_ = errors.Join(t.commands.Close(), t.publishes.Close())
		return nil, fmt.Errorf("connect to %s: %w", conn.Redacted(), err)
	}
	t.publisher = newPublisher(t)
	return t, nil
}

func (t *redisTransport) configure(o map[string]any) (err error) {
	t.keys = keys{sep: defaultSep, steps: []int{0, 3, 6, 9}, unacked: "unacked", unackedIndex: "unacked_index",
		fanoutPrefix: "/" + strconv.Itoa(t.conn.DB()) + ".", fanoutRoutes: true}
	t.options = options{visibilityTimeout: time.Hour, lease: 15 * time.Second, sweepInterval: 5 * time.Second, strategy: roundRobin}
	for name, v := range o {
		switch name {
		case "visibility_timeout":
			t.options.visibilityTimeout, err = seconds(name, v)
		case "gelery_lease":
			t.options.lease, err = seconds(name, v)
		case "gelery_sweep_interval":
			t.options.sweepInterval, err = seconds(name, v)
		case "global_keyprefix":
			t.keys.prefix, err = text(name, v)
		case "queue_order_strategy":
			known := []string{roundRobin, byName, inOrder}
			if t.options.strategy, err = text(name, v); err == nil && !slices.Contains(known, t.options.strategy) {
				err = fmt.Errorf("transport option queue_order_strategy is %q; expected one of %s", v, strings.Join(known, ", "))
			}
		case "sep":
			if t.keys.sep, err = text(name, v); err == nil && t.keys.sep == "" {
				err = fmt.Errorf("transport option sep is empty")
			}
		case "unacked_key":
			t.keys.unacked, err = text(name, v)
		case "unacked_index_key":
			t.keys.unackedIndex, err = text(name, v)
		case "priority_steps":
			t.keys.steps, err = steps(v)
		case "fanout_patterns":
			b, ok := v.(bool)
			if !ok {
				err = fmt.Errorf("transport option fanout_patterns is %v; expected true or false", v)
			}
			t.keys.fanoutRoutes = b
		case "fanout_prefix":
			switch v := v.(type) {
			case bool:
				if !v {
					t.keys.fanoutPrefix = ""
				}
			case string:
				if !strings.HasPrefix(v, "/") || !strings.HasSuffix(v, ".") || strings.Count(v, ".") != 1 {
					err = fmt.Errorf("transport option fanout_prefix is %q; it must start with / and end with its only dot", v)
				}
				t.keys.fanoutPrefix = strings.ReplaceAll(v, "{db}", strconv.Itoa(t.conn.DB()))
			default:
				err = fmt.Errorf("transport option fanout_prefix is %v; expected true, false or a prefix", v)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func text(name string, v any) (string, error) {
	s, ok := v.(string)
	if !ok {
		return "", fmt.Errorf("transport option %s is %v (%T); expected a string", name, v, v)
	}
	return s, nil
}

// seconds reads a positive number of seconds, as kombu writes it, or a time.Duration.
func seconds(name string, v any) (time.Duration, error) {
	var d time.Duration
	switch v := v.(type) {
	case time.Duration:
		d = v
	case int:
		d = time.Duration(v) * time.Second
	case int64:
		d = time.Duration(v) * time.Second
	case float64:
		d = time.Duration(v * float64(time.Second))
	default:
		return 0, fmt.Errorf("transport option %s is %v (%T); expected seconds", name, v, v)
	}
	if d <= 0 {
		return 0, fmt.Errorf("transport option %s is %v; expected more than 0 seconds", name, v)
	}
	return d, nil
}

// steps reads priority_steps: numbers 0…9, ascending, the first 0 (the bare list, which every Python producer uses).
func steps(v any) ([]int, error) {
	var out []int
	switch v := v.(type) {
	case []int:
		out = v
	case []any:
		for _, e := range v {
			switch e := e.(type) {
			case int:
				out = append(out, e)
			case int64:
				out = append(out, int(e))
			case float64:
				out = append(out, int(e))
			}
		}
		if len(out) != len(v) {
			out = nil
		}
	}
	ok := len(out) > 0 && out[0] == 0
	for i := range out {
		ok = ok && out[i] <= 9 && (i == 0 || out[i] > out[i-1])
	}
	if !ok {
		return nil, fmt.Errorf("transport option priority_steps is %v; expected ascending numbers from 0 to 9, the first 0", v)
	}
	return out, nil
}

// Ping implements transport.Pinger.
func (t *redisTransport) Ping(ctx context.Context) error { return t.commands.Ping(ctx).Err() }

// Close implements transport.Transport.
func (t *redisTransport) Close(context.Context) error {
	var err error
	t.closeOnce.Do(func() {
		t.publisher.close()
		err = errors.Join(t.publishes.Close(), t.commands.Close())
	})
	return err
}
