package redisconn

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/retry"
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

// Backoff waits between tries.
type Backoff = retry.Backoff

// DoOption changes what Do puts up with.
type DoOption int

// RetryFull lets Do retry errors of kind Full as well.
const RetryFull DoOption = 1

// Do calls f until it succeeds, fails for good, or ctx is done, as package retry says.
func Do(ctx context.Context, log *slog.Logger, what string, f func(ctx context.Context) error, opts ...DoOption) error {
	again := func(err error) bool {
		kind := Classify(err)
		return kind == Unavailable || kind == Full && slices.Contains(opts, RetryFull)
	}
	return retry.Policy{Server: "redis", Again: again}.Do(ctx, log, what, f)
}
