package cli

import (
	"context"
	"fmt"
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

// repeat does it until ctx is done or it fails. A terminal is wiped before each time.
func (w watch) repeat(ctx context.Context, out io.Writer, do func() error) error {
	ticker := time.NewTicker(time.Duration(w))
	defer ticker.Stop()
	for {
		if isTerminal(out) {
			fmt.Fprint(out, "\x1b[H\x1b[2J")
		}
		if err := do(); err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
