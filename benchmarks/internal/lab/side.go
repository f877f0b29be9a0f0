// Package lab is what the comparisons have in common: measured processes, interleaved pairs, and Gelery's own sides.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"time"
)

// orderVariable carries the order of a measured process, which is the measuring program again.
const orderVariable = "GELERY_BENCH_ORDER"

// Order is what a side is told.
type Order struct {
	Side        string // a key of the program's sides
	Broker      string // URL
	Backend     string // URL; "": none
	Redis       string // host:port
	Queue       string
	QueueType   string // "classic" (default), "quorum"
	Tasks       int    // how many to send, or to receive
	Batch       int    // how many in one call, where there are batches; 0: none
	Producers   int    // goroutines that send one call after the other; 0: 1
	Concurrency int
	Rate        int    // calls a second
	Events      bool   // a worker sends task events
	Task        string // what to call; "": Add
	From        int64  // Unix nanoseconds: when the first of tasks with an eta is due
	Ledger      string // file in which a worker notes what it has run
	Profile     string // file for a CPU profile; "": none
}

// Report is what a side says, one JSON line each.
type Report struct {
	Started   int64           `json:",omitempty"` // Unix nanoseconds: the worker is about to start
	Seconds   float64         `json:",omitempty"` // what the measured part took
	Latencies []time.Duration `json:",omitempty"`
}

// Side is what a measured process can be. It ends by itself or when stdin ends, which ends ctx.
type Side func(ctx context.Context, o Order, say func(Report)) error

// RunSide carries out the order that the environment holds, in which case this is a measured process, and returns its
// exit code. Not ok: there is none, the program measures.
func RunSide(sides map[string]Side) (code int, ok bool) {
	text := os.Getenv(orderVariable)
	if text == "" {
		return 0, false
	}
	var o Order
	if err := json.Unmarshal([]byte(text), &o); err != nil || sides[o.Side] == nil {
		fmt.Fprintf(os.Stderr, "%s=%s: %v; expected the order of a known side\n", orderVariable, text, err)
		return 2, true
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent closes it, or is gone
		cancel()
	}()
	err := profiled(o.Profile, func() error {
		out := json.NewEncoder(os.Stdout)
		return sides[o.Side](ctx, o, func(r Report) { _ = out.Encode(r) })
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", o.Side, err)
		return 1, true
	}
	return 0, true
}

// Share calls f for each task of an order, from as many goroutines as it wants.
func Share(o Order, f func(i int) error) error {
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

// profileName is the file for the profile of an order in a folder.
func profileName(dir string, o Order) string {
	events := ""
	if o.Events {
		events = "-events"
	}
	return filepath.Join(dir, fmt.Sprintf("%s%s%s-c%d-p%d-b%d.pprof", o.Side, o.QueueType, events, o.Concurrency, o.Producers, o.Batch))
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
