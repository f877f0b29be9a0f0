package redisconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// reply is an error as a server sends it.
type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestClassify(t *testing.T) {
	t.Parallel()
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	tests := []struct {
		err     error
		kind    Kind
		inDoubt bool
	}{
		{reply("WRONGPASS invalid username-password pair"), Fatal, false},
		{reply("NOAUTH Authentication required."), Fatal, false},
		{reply("NOPERM this user has no permissions"), Fatal, false},
		{reply("WRONGTYPE Operation against a key"), Fatal, false},
		{reply("WRONGTYPE Operation against a key script: 1f, on @user_script:3."), Fatal, true},
		{reply("ERR syntax error"), Fatal, false},
		{reply("ERR Error running script (call to f_1): @user_script:1: attempt to index nil"), Fatal, true},
		{reply("OOM command not allowed when used memory > 'maxmemory'."), Full, false},
		{reply("OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:1."), Full, false},
		{reply("MISCONF Redis is configured to save RDB snapshots"), Full, false},
		{reply("READONLY You can't write against a read only replica."), Unavailable, false},
		{reply("ERR Error running script (call to f_1): @user_script:1: @user_script: 1: -READONLY You can't write"), Unavailable, false},
		{reply("LOADING Redis is loading the dataset in memory"), Unavailable, false},
		{reply("MASTERDOWN Link with MASTER is down"), Unavailable, false},
		{reply("CLUSTERDOWN The cluster is down"), Unavailable, false},
		{reply("TRYAGAIN Multiple keys request during rehashing of slot"), Unavailable, false},
		{reply("UNBLOCKED force unblock from blocking operation"), Unavailable, false},
		{reply("NOREPLICAS Not enough good replicas to write."), Unavailable, false},
		{reply("BUSY Redis is busy running a script."), Unavailable, false},
		{reply("BUSYGROUP Consumer Group name already exists"), Fatal, false},
		{reply("ERR max number of clients reached"), Unavailable, false},
		{redis.Nil, Fatal, false},
		{redis.ErrClosed, Fatal, false},
		{redis.ErrPoolTimeout, Unavailable, false},
		{context.Canceled, Fatal, true},
		{context.DeadlineExceeded, Unavailable, true},
		{io.EOF, Unavailable, true},
		{io.ErrUnexpectedEOF, Unavailable, true},
		{net.ErrClosed, Unavailable, true},
		{refused, Unavailable, false},
		{reset, Unavailable, true},
		{&net.DNSError{Err: "no such host", Name: "h", IsNotFound: true}, Unavailable, false},
		{errors.New("something else"), Fatal, true},
	}
	for _, tt := range tests {
		for _, err := range []error{tt.err, fmt.Errorf("wrapped: %w", tt.err)} {
			if got := Classify(err); got != tt.kind {
				t.Errorf("Classify(%v) = %d, want %d", err, got, tt.kind)
			}
			if got := InDoubt(err); got != tt.inDoubt {
				t.Errorf("InDoubt(%v) = %v", err, got)
			}
		}
	}
	if InDoubt(nil) {
		t.Error("InDoubt(nil)")
	}
}

func TestDoRetriesUntilItWorks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		start := time.Now()
		tries := 0
		err := Do(t.Context(), log, "fetch", func(context.Context) error {
			if tries++; time.Since(start) < 25*time.Second {
				return io.EOF
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		// 50, 100, 200 … 2000 ms shortened by up to a half: between 13 and 33 tries.
		if tries < 13 || tries > 33 {
			t.Errorf("%d tries in 25 s", tries)
		}
		if n := strings.Count(out.String(), "level=WARN"); n != 3 {
			t.Errorf("%d warnings in 25 s, want 3:\n%s", n, &out)
		}
		if !strings.Contains(out.String(), "redis is back") {
			t.Errorf("no word of the recovery:\n%s", &out)
		}
	})
}

func TestDoEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := Do(ctx, slog.New(slog.DiscardHandler), "fetch", func(context.Context) error { return io.EOF })
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, io.EOF) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v", err)
		}
	})
}

func TestDoBoundsEachTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		err := Do(t.Context(), slog.New(slog.DiscardHandler), "fetch", func(ctx context.Context) error {
			if tries++; tries == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		})
		if err != nil || tries != 2 {
			t.Errorf("%d tries, %v", tries, err)
		}
	})
}

func TestDoStopsWhereRetryingIsVain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		opts []DoOption
		want int
	}{
		{reply("NOAUTH"), nil, 1},
		{reply("OOM"), nil, 1},
		{reply("OOM"), []DoOption{RetryFull}, 3},
		{reply("READONLY"), nil, 3},
	} {
		tries := 0
		err := Do(t.Context(), slog.New(slog.DiscardHandler), "fetch", func(context.Context) error {
			if tries++; tries == 3 {
				return nil
			}
			return tt.err
		}, tt.opts...)
		if tries != tt.want || (err == nil) != (tt.want == 3) {
			t.Errorf("%v %v: %d tries, %v", tt.err, tt.opts, tries, err)
		}
	}
}
