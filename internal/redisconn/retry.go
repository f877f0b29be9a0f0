package redisconn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// Kind says what an error of Redis calls for.
type Kind int

const (
	// Fatal: asking again will not help (wrong password, wrong type, a broken script, a closed client), or the caller
	// gave up. Also redis.Nil, which is an answer and no failure.
	Fatal Kind = iota
	// Full: writes are refused for want of memory or disk; somebody must make room.
	Full
	// Unavailable: the server is away, starting, failing over or no master just now; ask again soon.
	Unavailable
)

var (
	fullCodes        = []string{"OOM", "MISCONF"}
	unavailableCodes = []string{"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED", "NOREPLICAS", "BUSY"}
)

// Classify sorts an error that is not nil.
func Classify(err error) Kind {
	var reply redis.Error
	if errors.As(err, &reply) {
		return classifyReply(reply.Error())
	}
	var certErr x509.UnknownAuthorityError
	var nameErr x509.HostnameError
	var invalidErr x509.CertificateInvalidError
	switch {
	case errors.Is(err, redis.ErrClosed), errors.Is(err, context.Canceled),
		errors.As(err, &certErr), errors.As(err, &nameErr), errors.As(err, &invalidErr):
		return Fatal
	case errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNREFUSED),
		errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted),
		strings.Contains(err.Error(), "all sentinels specified in configuration are unreachable"):
		return Unavailable
	}
	var netErr net.Error // every *net.OpError and DNS error is one
	if errors.As(err, &netErr) {
		return Unavailable
	}
	return Fatal
}

func classifyReply(msg string) Kind {
	switch {
	case hasCode(msg, fullCodes):
		return Full
	case hasCode(msg, unavailableCodes), strings.HasPrefix(msg, "ERR max number of clients"):
		return Unavailable
	}
	return Fatal
}

// hasCode finds an error code at the start of a reply, or where Redis before 7 put the code of an error inside a
// script: "ERR Error running script (call to f_…): @user_script:1: -READONLY You can't…".
func hasCode(msg string, codes []string) bool {
	inScript := strings.HasPrefix(msg, "ERR Error running script")
	for _, c := range codes {
		if rest, ok := strings.CutPrefix(msg, c); ok && (rest == "" || rest[0] == ' ') {
			return true
		}
		if inScript && strings.Contains(msg, " -"+c+" ") {
			return true
		}
	}
	return false
}

// InDoubt reports whether a request that ended with this error may have been executed nevertheless: true unless Redis
// refused it or no connection was made.
func InDoubt(err error) bool {
	if err == nil {
		return false
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		// A script may have failed half way. The refusals to write at all come before its first write.
		msg := reply.Error()
		inScript := strings.Contains(msg, "script: ") || strings.HasPrefix(msg, "ERR Error running script")
		return inScript && classifyReply(msg) == Fatal
	}
	var opErr *net.OpError
	var dnsErr *net.DNSError
	switch {
	case errors.As(err, &opErr) && opErr.Op == "dial", errors.As(err, &dnsErr),
		errors.Is(err, redis.ErrClosed), errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted),
		strings.Contains(err.Error(), "all sentinels specified in configuration are unreachable"):
		return false
	}
	return true
}

// Backoff waits between tries: 50 ms at first, twice as long each time up to 2 s, each shortened by chance by up to a
// half so that a fleet does not come back in step. The zero value is ready.
type Backoff struct {
	Min, Max time.Duration // 0: 50 ms and 2 s
	next     time.Duration
}

// Wait waits for the next interval or until ctx is done, whose cause it then returns.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.interval())
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// Reset starts over with the shortest interval.
func (b *Backoff) Reset() { b.next = 0 }

func (b *Backoff) interval() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = 50 * time.Millisecond
	}
	if hi <= 0 {
		hi = 2 * time.Second
	}
	if b.next == 0 {
		b.next = lo
	}
	d := b.next
	b.next = min(2*b.next, max(lo, hi))
	return d - rand.N(d/2+1)
}

const (
	attemptTimeout = 10 * time.Second
	logInterval    = 10 * time.Second
)

// DoOption changes what Do puts up with.
type DoOption int

// RetryFull lets Do retry errors of kind Full as well.
const RetryFull DoOption = 1

// Do calls f until it succeeds, fails for good, or ctx is done. Each try has at most 10 s; between them it backs off.
// What says what is being done, for the log and the error ("store results"): the first failure is logged, then one in
// 10 s, then the recovery. When ctx ends the tries, the error is both the context's and the last one of f.
func Do(ctx context.Context, log *slog.Logger, what string, f func(ctx context.Context) error, opts ...DoOption) error {
	var b Backoff
	var logged time.Time
	for try := 1; ; try++ {
		err := attempt(ctx, f)
		if err == nil {
			if try > 1 {
				log.Info("redis is back", "doing", what, "tries", try)
			}
			return nil
		}
		if ctx.Err() != nil {
			return giveUp(ctx, what, err)
		}
		kind := Classify(err)
		if kind == Fatal || kind == Full && !contains(opts, RetryFull) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if now := time.Now(); now.Sub(logged) >= logInterval {
			logged = now
			log.Warn("redis does not answer, trying again", "doing", what, "tries", try, "error", err)
		}
		if b.Wait(ctx) != nil {
			return giveUp(ctx, what, err)
		}
	}
}

func contains(opts []DoOption, o DoOption) bool {
	for _, x := range opts {
		if x == o {
			return true
		}
	}
	return false
}

func attempt(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	return f(ctx)
}

func giveUp(ctx context.Context, what string, last error) error {
	cause := context.Cause(ctx)
	if errors.Is(last, cause) {
		return fmt.Errorf("%s: %w", what, last)
	}
	return fmt.Errorf("%s: %w, last error: %w", what, cause, last)
}
