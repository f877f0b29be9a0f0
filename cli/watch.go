package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// watch is the flag --watch: how often a command is repeated, 0 for once.
type watch seconds

func (w *watch) add(cmd *cobra.Command) {
	cmd.Flags().VarP((*seconds)(w), "watch", "w", "show it again every so often, until interrupted; every 2 s if no time is given")
	cmd.Flags().Lookup("watch").NoOptDefVal = "2"
}

func (w watch) check() error {
	if w < 0 {
		return usage("--watch is less than 0", "", "")
	}
	return nil
}

// document is how a document is written each time.
func (w watch) document(o output) func(io.Writer, any) error {
	if w > 0 {
		return o.next
	}
	return o.document
}

// unanswered is an error of a broker that does not do what it is asked for.
type unanswered struct{ err error }

func (u *unanswered) Error() string { return u.err.Error() }
func (u *unanswered) Unwrap() error { return u.err }

// clearScreen wipes a terminal.
const clearScreen = homeScreen + clearRest

// screenBuffer keeps what goes to a terminal, in the form it has there.
type screenBuffer struct{ bytes.Buffer }

// watched does it once, or with --watch again and again.
func (a *app) watched(ctx context.Context, w watch, do func() error) error {
	if err := w.check(); err != nil {
		return err
	}
	if w == 0 {
		return do()
	}
	return a.repeat(ctx, w, do)
}

// repeat does it until ctx is done or it fails. A terminal is wiped before each picture. While the broker is away it goes on, and
// says why there is nothing to see.
func (a *app) repeat(ctx context.Context, w watch, do func() error) error {
	ticker := time.NewTicker(time.Duration(w))
	defer ticker.Stop()
	for {
		var err error
		if isTerminal(a.stdout) {
			err = a.repaint(ctx, do)
		} else {
			err = do()
		}
		if away, ok := errors.AsType[*unanswered](err); ok && ctx.Err() == nil {
			if f, ok := errors.AsType[*failure](asFailure(ctx, away.err)); ok {
				f.print(a.stderr, a.name)
			}
		} else if err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// repaint wipes the terminal when there is something new to show, so that the last picture stays as long as it takes, and at the end.
func (a *app) repaint(ctx context.Context, do func() error) error {
	out, errs := a.stdout, a.stderr
	var picture, told screenBuffer
	a.stdout, a.stderr = &picture, &told
	err := do()
	a.stdout, a.stderr = out, errs
	if ctx.Err() != nil {
		return err
	}
	if _, failed := io.WriteString(out, clearScreen+picture.String()); failed != nil {
		return failed
	}
	if _, failed := told.WriteTo(errs); failed != nil {
		return failed
	}
	return err
}
