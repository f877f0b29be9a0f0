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
	PoolSize int // most connections; 0: the option max_connections, or go-redis' 10 for each CPU
	// ReadTimeout bounds the wait for one reply. 0: the option socket_timeout, or 10 s.
	ReadTimeout time.Duration
	// Blocking is for commands that wait at the server (BLMOVE, scripts aside): the default ReadTimeout is 40 s, so
	// keep their own wait below 30 s. go-redis adds the time of BRPOP and the like by itself.
	Blocking bool
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
	d := &dialer{tls: c.tls, addrs: c.addrs, net: net.Dialer{Timeout: dial}}
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
	at    atomic.Uint32 // index of the server in use, ever growing
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
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, &net.OpError{Op: "dial", Net: network, Err: joinLine(errs)}
}

func (d *dialer) dialOne(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.tls == nil {
		return d.net.DialContext(ctx, network, addr)
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
		at := d.at.Load()
		err := next(ctx, cmd)
		d.note(at, err)
		return err
	}
}

func (d *dialer) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		at := d.at.Load()
		err := next(ctx, cmds)
		d.note(at, err)
		return err
	}
}

func (d *dialer) note(at uint32, err error) {
	if err != nil && redis.IsReadOnlyError(err) {
		d.at.CompareAndSwap(at, at+1)
	}
}
