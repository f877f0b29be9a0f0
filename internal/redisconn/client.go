package redisconn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	defaultDialTimeout = 5 * time.Second
	defaultReadTimeout = 10 * time.Second
	blockingTimeout    = 40 * time.Second
	keepAliveInterval  = 15 * time.Second
	// unackedTimeout is how long sent bytes may stay unacknowledged before the kernel gives the connection up.
	unackedTimeout = 30 * time.Second
)

// ClientOptions says what a client is for.
type ClientOptions struct {
	// PoolSize is the most connections in use, subscriptions aside. 0: the option max_connections, or 10 for each CPU.
	PoolSize int
	// ReadTimeout bounds the wait for one reply. 0: the option socket_timeout, or 10 s.
	ReadTimeout time.Duration
	// Blocking is for commands that wait at the server: the default ReadTimeout is 40 s, so keep their own wait below
	// 30 s. For BRPOP, BLMOVE and the other blocking methods go-redis reckons with their wait by itself.
	Blocking bool
	// Spin is for callers who wait for each reply before they ask again: a reply that comes within some 100 µs is read
	// without going to sleep, which nearly doubles the rate against a server nearby and costs CPU time while it waits.
	Spin bool
}

// Client makes a client. It connects when first used. It sends nothing twice by itself and speaks RESP2, because that
// is what every Redis since 2.6 and every proxy understands; whoever calls it retries, with Do, what may be repeated.
// Contexts with deadlines bound each call; a cancelled context does not interrupt a reply being waited for.
func (c *Config) Client(o ClientOptions) redis.UniversalClient {
	size := o.PoolSize
	if size == 0 || c.maxConnections > 0 && size > c.maxConnections {
		size = c.maxConnections
	}
	read := o.ReadTimeout
	if read == 0 {
		read = defaultReadTimeout
		if o.Blocking {
			read = blockingTimeout
		} else if c.socketTimeout > 0 {
			read = c.socketTimeout
		}
	}
	dial := c.connectTimeout
	if dial == 0 {
		dial = defaultDialTimeout
	}
	d := &dialer{tls: c.tls, addrs: c.addrs, net: net.Dialer{Timeout: dial}, spin: o.Spin}
	if c.keepAlive {
		d.net.KeepAliveConfig = net.KeepAliveConfig{
			Enable: true, Idle: keepAliveInterval, Interval: keepAliveInterval, Count: 3,
		}
		d.net.Control = setUserTimeout
	} else {
		d.net.KeepAlive = -1
	}
	if c.isSentinel() {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: c.master, SentinelAddrs: c.addrs,
			SentinelUsername: c.sentinelUser, SentinelPassword: c.sentinelPassword,
			ClientName: c.clientName, Dialer: d.dialOne,
			Protocol: 2, Username: c.user, Password: c.password, DB: c.db,
			MaxRetries: -1, DialTimeout: dial, DialerRetries: 1,
			ReadTimeout: read, WriteTimeout: defaultReadTimeout, ContextTimeoutEnabled: true,
			PoolSize: size, PipelinePoolSize: -1, DisableIdentity: true,
		})
	}
	client := redis.NewClient(&redis.Options{
		Network: c.network, Addr: c.addrs[0], ClientName: c.clientName, Dialer: d.dialAny,
		Protocol: 2, Username: c.user, Password: c.password, DB: c.db,
		MaxRetries: -1, DialTimeout: dial, DialerRetries: 1,
		ReadTimeout: read, WriteTimeout: defaultReadTimeout, ContextTimeoutEnabled: true,
		// One pool for everything, so that PoolSize means what it says.
		PoolSize: size, PipelinePoolSize: -1, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	if len(c.addrs) > 1 {
		client.AddHook(d)
	}
	return client
}

// dialer opens connections, over a failover list if there is one. It stays with the server that last worked and moves
// on when that cannot be reached or says that it does not take writes.
type dialer struct {
	net   net.Dialer
	tls   *tls.Config
	addrs []string
	spin  bool
	at    atomic.Uint32 // index of the server in use, ever growing
	moved atomic.Int64  // when a read-only server was last left, Unix nanoseconds
}

func (d *dialer) dialAny(ctx context.Context, network, _ string) (net.Conn, error) {
	var errs []error
	for range d.addrs {
		at := d.at.Load()
		conn, err := d.dialOne(ctx, network, d.addrs[int(at)%len(d.addrs)])
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		d.at.CompareAndSwap(at, at+1)
		if ctx.Err() != nil {
			break // this server took all the time; the next try begins with the next one
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: joinLine(errs)}
}

func (d *dialer) dialOne(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.tls == nil {
		conn, err := d.net.DialContext(ctx, network, addr)
		if err == nil && d.spin {
			conn = spinning(conn)
		}
		return conn, err
	}
	cfg := d.tls.Clone()
	if host, _, err := net.SplitHostPort(addr); err == nil {
		cfg.ServerName = host
	}
	td := tls.Dialer{NetDialer: &d.net, Config: cfg}
	conn, err := td.DialContext(ctx, network, addr)
	var opErr *net.OpError
	if err != nil && !errors.As(err, &opErr) {
		// A handshake error has no address of its own.
		err = &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%s: %w", addr, err)}
	}
	return conn, err
}

// joinLine is errors.Join on one line.
func joinLine(errs []error) error {
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

// The dialer is a hook as well, to hear of servers that answer but are no master. go-redis drops a connection that
// said READONLY, so the next one is dialed anew.

func (d *dialer) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *dialer) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		d.note(err)
		return err
	}
}

func (d *dialer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		d.note(err)
		return err
	}
}

// note leaves a server that is read-only. The pool may hold more connections to it, whose complaints follow within the
// next second: they are about the server already left.
func (d *dialer) note(err error) {
	if err == nil || !redis.IsReadOnlyError(err) {
		return
	}
	now, last := time.Now().UnixNano(), d.moved.Load()
	if now-last > int64(time.Second) && d.moved.CompareAndSwap(last, now) {
		d.at.Add(1)
	}
}
