//go:build unix

package redisconn

import (
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// spinFor is how long a read asks for a reply before it goes to sleep for it: about what a server on the same machine or
// in the same rack takes.
const spinFor = 100 * time.Microsecond

// spinning wraps a connection of which somebody waits for each reply. A goroutine that sleeps for a reply pays for being
// woken, and on a quiet machine the core pays for waking up: half of a round trip to a server nearby. So Read asks
// again and again for a moment, letting every other goroutine go first, before it sleeps. Where replies take longer
// than the moment, it soon stops asking: after each miss it sleeps at once for twice as many reads as before. (Publishing
// one task at a time on two cores: 0.8 times asynq's rate without, 1.7 times with it; a bare PING without it 1.5 times.)
func spinning(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn // TLS has its own reads, and spends more than a wake-up on each
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	return &spinConn{TCPConn: tcp, raw: raw}
}

// spinConn embeds the TCP connection, not only its interface: go-redis looks at the socket itself to see if it is alive.
type spinConn struct {
	*net.TCPConn
	raw syscall.RawConn

	// One reader at a time, as with any stream; atomics, because go-redis hands connections from goroutine to goroutine.
	rest   atomic.Int32 // reads to sleep for at once
	misses atomic.Int32 // in a row, at most 10
}

func (c *spinConn) Read(b []byte) (int, error) {
	if rest := c.rest.Load(); rest > 0 {
		c.rest.Store(rest - 1)
		return c.TCPConn.Read(b)
	}
	if len(b) == 0 {
		return c.TCPConn.Read(b)
	}
	for begun := time.Now(); ; runtime.Gosched() {
		var n int
		var err error
		if e := c.raw.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), b)
			return true // answered or not, do not sleep
		}); e != nil {
			return 0, e // closed, or past the deadline
		}
		switch {
		case n > 0:
			c.misses.Store(0)
			return n, nil
		case n == 0 && err == nil:
			return 0, io.EOF
		case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.EINTR):
		default:
			return c.TCPConn.Read(b) // which says it in the words of package net
		}
		if time.Since(begun) > spinFor {
			misses := min(c.misses.Load()+1, 10)
			c.misses.Store(misses)
			c.rest.Store(1 << misses >> 1)
			return c.TCPConn.Read(b)
		}
	}
}
