package cli

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/spf13/cobra"

	"github.com/gelery/gelery/worker"
)

func devCommand(a *app) *cobra.Command {
	f := &workerFlags{}
	var port int
	cmd := &cobra.Command{
		Use:     "dev",
		GroupID: groupRun,
		Short:   "Run a broker, a worker with demo tasks and a beat, nothing else needed",
		Long: `Run a broker, a worker with demo tasks and a beat, nothing else needed

The beat sends the periodic tasks of the settings, of files and of the program. The broker lives in this process, is reached from this machine only, and forgets everything when it ends. Go and Python
programs may join it: their URLs, and a line for each to try, are printed on standard output. Ctrl-C ends it.

Exit codes: 0 stopped, 1 stopped cold or could not begin, 2 wrong usage.`,
		Example: `  gelery dev
  gelery dev --port 6379 --queues celery,mail`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.broker != "" || a.backend != "" {
				return usage("dev brings its own broker and result backend", "", "give no URLs, or use: "+a.name+" worker --demo")
			}
			return asFailure(cmd.Context(), a.dev(cmd.Context(), f, port))
		},
	}
	f.add(cmd, "INFO")
	cmd.Flags().IntVar(&port, "port", 0, "TCP `port` of the broker on 127.0.0.1; 0: a free one")
	cmd.Flags().BoolP("beat", "B", true, "")
	_ = cmd.Flags().MarkHidden("beat") // it is so anyway
	addForeignFlags(cmd.Flags(), foreignWorker)
	return cmd
}

func (a *app) dev(ctx context.Context, f *workerFlags, port int) error {
	addDemo(a.mux)
	f.beat, a.forgetful = true, true
	if addr := os.Getenv(devBroker); worker.IsChild() && addr != "" {
		broker, backend := devURLs(addr)
		return a.work(ctx, f, broker, backend, func() {})
	}
	server := miniredis.NewMiniRedis()
	if err := server.StartAddr(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
		return &failure{exitFailed, fmt.Sprintf("the broker cannot listen on port %d", port), err.Error(), "give another --port, or 0 for a free one"}
	}
	defer server.Close()
	if err := os.Setenv(devBroker, server.Addr()); err != nil {
		return err
	}
	aging, stopAging := context.WithCancel(context.WithoutCancel(ctx)) // as long as the worker takes to stop
	aged := make(chan struct{})
	go func() {
		defer close(aged)
		age(aging, server)
	}()
	defer func() {
		stopAging()
		<-aged
	}()
	broker, backend := devURLs(server.Addr())
	return a.work(ctx, f, broker, backend, func() { a.invite(broker, backend) })
}

// devBroker is the variable in which dev tells the children of its worker's process pool where the broker is.
const devBroker = "GELERY_DEV_BROKER"

func devURLs(addr string) (broker, backend string) {
	return "redis://" + addr + "/0", "redis://" + addr + "/1"
}

// age makes keys expire: miniredis lets time pass only when told. Its own ClockTTL does it too, but walks all keys for
// every command.
func age(ctx context.Context, server *miniredis.Miniredis) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case now := <-tick.C:
			server.FastForward(now.Sub(last))
			last = now
		case <-ctx.Done():
			return
		}
	}
}

// invite tells others how to join.
func (a *app) invite(broker, backend string) {
	fmt.Fprintf(a.stdout, `broker:   %[1]s
backend:  %[2]s

From Go, in another terminal:
  %[3]s --broker %[1]s --result-backend %[2]s call dev.add --args '[2, 3]' --wait

From Python, where celery[redis] is installed:
  python3 -c "from celery import Celery; print(Celery(broker='%[1]s', backend='%[2]s').send_task('dev.add', (2, 3)).get(timeout=10))"

`, broker, backend, a.invocation())
}

// invocation is what to type in order to run this program again. What `go run` made is gone soon, so that is go run.
func (a *app) invocation() string {
	program := os.Args[0]
	if path, err := exec.LookPath(a.name); err == nil && filepath.IsAbs(path) {
		if self, err := os.Executable(); err == nil && self == path {
			return a.name
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok && builtByGoRun(program) {
		return "go run " + info.Path
	}
	return program
}

// builtByGoRun tells a program in go run's temporary folder.
func builtByGoRun(program string) bool {
	match, err := filepath.Match(filepath.Join(os.TempDir(), "go-build*", "*", "exe", "*"), program)
	return err == nil && match
}
