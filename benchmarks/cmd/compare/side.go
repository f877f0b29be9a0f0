package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// orderVariable carries the order of a measured process, which is this program again.
const orderVariable = "GELERY_COMPARE_ORDER"

// order is what a side is told.
type order struct {
	Side        string // a key of sides
	Redis       string // host:port
	Tasks       int    // how many to send
	Batch       int    // how many in one call, where there are batches; 0: none
	Producers   int    // goroutines that send one call after the other; 0: 1
	Concurrency int
	Rate        int    // calls a second
	Task        string // what to call
	Profile     string // file for a CPU profile
}

// report is what a side says, one JSON line each.
type report struct {
	Started   int64           `json:",omitempty"` // Unix nanoseconds: the worker is about to start
	Seconds   float64         `json:",omitempty"` // what the measured part took
	Latencies []time.Duration `json:",omitempty"`
}

// sides are what a measured process can be. It ends by itself or when stdin ends, which ends ctx.
var sides = map[string]func(ctx context.Context, o order, say func(report)) error{
	"gelery-worker":  geleryWorker,
	"gelery-enqueue": geleryEnqueue,
	"gelery-latency": geleryLatency,
	"ping":           ping,
	"asynq-worker":   asynqWorker,
	"asynq-enqueue":  asynqEnqueue,
}

// shared calls f for each task of an order, from as many goroutines as it wants.
func shared(o order, f func(i int) error) error {
	var next atomic.Int64
	var working sync.WaitGroup
	errs := make([]error, max(1, o.Producers))
	for p := range errs {
		working.Go(func() {
			for i := int(next.Add(1)) - 1; i < o.Tasks && errs[p] == nil; i = int(next.Add(1)) - 1 {
				errs[p] = f(i)
			}
		})
	}
	working.Wait()
	return errors.Join(errs...)
}

func orderFromEnvironment() (o order, ok bool) {
	text := os.Getenv(orderVariable)
	if text == "" {
		return o, false
	}
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", orderVariable+":", err)
		os.Exit(2)
	}
	return o, true
}

// runSide carries out an order and returns the exit code.
func runSide(o order) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it, or is gone
		cancel()
	}()
	err := profiled(o.Profile, func() error {
		out := json.NewEncoder(os.Stdout)
		return sides[o.Side](ctx, o, func(r report) { _ = out.Encode(r) })
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", o.Side, err)
		return 1
	}
	return 0
}

func profiled(file string, f func() error) (err error) {
	if file == "" {
		return f()
	}
	w, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := pprof.StartCPUProfile(w); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

// process is a running side, as its parent sees it.
type process struct {
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	reports *bufio.Reader
}

// start runs a side on its core.
func (b *bench) start(ctx context.Context, o order, core string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	o.Redis = b.server.Addr
	if b.profile != "" {
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			return nil, err
		}
		o.Profile = filepath.Join(b.profile, fmt.Sprintf("%s-c%d-p%d-b%d.pprof", o.Side, o.Concurrency, o.Producers, o.Batch))
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	command := append(b.on(core), self)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", orderVariable+"="+string(text))
	cmd.Stderr = os.Stderr
	p := &process{cmd: cmd}
	if p.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.reports = bufio.NewReader(stdout)
	return p, cmd.Start()
}

// next waits for the side's next report.
func (p *process) next() (r report, err error) {
	line, err := p.reports.ReadBytes('\n')
	if err != nil {
		return r, fmt.Errorf("side ended without a report: %w", err)
	}
	return r, json.Unmarshal(line, &r)
}

// stop tells the side to end and waits for it.
func (p *process) stop() error {
	_ = p.stdin.Close()
	return p.cmd.Wait()
}

// produce runs a side that ends by itself and returns its only report.
func (b *bench) produce(ctx context.Context, o order, core string) (report, error) {
	p, err := b.start(ctx, o, core)
	if err != nil {
		return report{}, err
	}
	r, err := p.next()
	return r, errors.Join(err, p.stop())
}
