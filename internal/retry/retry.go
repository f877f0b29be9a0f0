// Package retry calls a server again until it answers, the way all drivers do it.
package retry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

const (
	attemptTimeout = 10 * time.Second
	logInterval    = 10 * time.Second
)

// Policy is how a driver asks its server again.
type Policy struct {
	Server string               // who is asked, for the log: "redis"
	Again  func(err error) bool // whether another try may help
}

// Do calls f until it succeeds, fails for good, or ctx is done. Each try has at most 10 s; between them it backs off.
// What says what is being done, for the log and the error ("store results"): the first failure is logged, then one in
// 10 s, then the recovery. When ctx ends the tries, the error is both the context's and the last one of f. A try
// that the end of ctx has cut short tells nothing: then it is that of the try before.
func (p Policy) Do(ctx context.Context, log *slog.Logger, what string, f func(ctx context.Context) error) error {
	var b Backoff
	var logged time.Time
	var last error
	for try := 1; ; try++ {
		err := attempt(ctx, f)
		if err == nil {
			if try > 1 {
				log.Info(p.Server+" is back", "doing", what, "tries", try)
			}
			return nil
		}
		if ctx.Err() != nil {
			if last != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
				err = last
			}
			return giveUp(ctx, what, err)
		}
		last = err
		if !p.Again(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if now := time.Now(); now.Sub(logged) >= logInterval {
			logged = now
			log.Warn(p.Server+" does not answer, trying again", "doing", what, "tries", try, "error", err)
		}
		if b.Wait(ctx) != nil {
			return giveUp(ctx, what, err)
		}
	}
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
