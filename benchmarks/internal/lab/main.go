package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Config is the parsed command line of a measuring program.
type Config interface {
	Limit() time.Duration // give up after
}

// Main is the main function of a program that measures processes of its own. Exit codes: 0 the bounds hold, 1 one does not
// or something went wrong, 2 the command line is wrong.
func Main[C Config](name string, sides map[string]Side, parse func(args []string) (C, error),
	measure func(context.Context, C) (missed []string, err error)) {
	if code, ok := RunSide(sides); ok {
		os.Exit(code)
	}
	c, err := parse(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, c.Limit())
	missed, err := measure(ctx, c)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	if len(missed) > 0 {
		fmt.Println("\nMISSED:")
		for _, m := range missed {
			fmt.Println("  " + m)
		}
		os.Exit(1)
	}
	fmt.Println("\nall bounds hold")
}

// Until looks every now and then for what nobody tells us of.
func Until(ctx context.Context, every time.Duration, f func() (done bool, err error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
