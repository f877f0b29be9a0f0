// Command beat measures the scheduler with many entries: how long it takes until it looks for what is due, what it costs while
// nothing is, and how late runs are, spread over time and all at once each second.
//
//	go run ./cmd/beat
//	go run ./cmd/beat -entries 1000 -span 5s
//
// The entries are in a file of JSON with a state file beside it. The broker is a redis-server of its own.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/redisserver"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/redis"
)

// What must be reached.
const (
	mostStart = 2 * time.Second
	mostIdle  = 0.01 // of a core
	mostLate  = 50 * time.Millisecond
)

type config struct {
	entries, rate int
	span          time.Duration
}

// Limit is lab.Config's.
func (c config) Limit() time.Duration { return 4*c.span + 2*time.Minute }

func main() {
	lab.Main("beat", nil, parse, measure)
}

func parse(args []string) (c config, err error) {
	flags := flag.NewFlagSet("beat", flag.ContinueOnError)
	flags.IntVar(&c.entries, "entries", 100_000, "entries in the store")
	flags.IntVar(&c.rate, "rate", 1_000, "runs due each second")
	flags.DurationVar(&c.span, "span", 20*time.Second, "how long each is watched")
	return c, flags.Parse(args)
}

// trial is a beat that is watched for some time.
type trial struct {
	name       string
	entries    int
	definition string        // of each entry
	phases     time.Duration // over which the entries' last moments are spread; 0: they are new
}

// seen is what a trial showed.
type seen struct {
	start time.Duration // until the store was asked for what is due
	idle  float64       // CPU time over time, after the start
	late  []time.Duration
}

func measure(ctx context.Context, c config) (missed []string, err error) {
	server, err := redisserver.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = server.Stop() }()
	dir, err := os.MkdirTemp("", "gelery-beat-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	every := strconv.Itoa(max(1, c.entries/c.rate))
	fmt.Println("load:", lab.Load())
	for _, t := range []trial{
		{"idle", c.entries, `{"task": "bench.one", "schedule": "0 0 29 2 *"}`, 0},
		{"spread", c.entries, `{"task": "bench.one", "schedule": ` + every + `}`, time.Duration(max(1, c.entries/c.rate)) * time.Second},
		{"each second", c.rate, `{"task": "bench.one", "schedule": 1}`, 0},
	} {
		s, err := t.run(ctx, c, server.URL, dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Printf("%-12s %d entries: start %v, CPU %.2f %% of a core, %d runs", t.name, t.entries, s.start.Round(time.Millisecond), 100*s.idle, len(s.late))
		if len(s.late) > 0 {
			fmt.Printf(", late p50 %v, p99 %v, most %v", lab.Percentile(s.late, 50), lab.Percentile(s.late, 99), s.late[len(s.late)-1])
		}
		fmt.Println()
		if s.start > mostStart {
			missed = append(missed, fmt.Sprintf("%s: start %v, want at most %v", t.name, s.start, mostStart))
		}
		if t.name == "idle" && s.idle > mostIdle {
			missed = append(missed, fmt.Sprintf("idle CPU %.2f %%, want at most 1 %%", 100*s.idle))
		}
		if t.name == "spread" && len(s.late) > 0 && lab.Percentile(s.late, 99) > mostLate { // at once they come one behind the other
			missed = append(missed, fmt.Sprintf("%s: late by %v at p99, want at most %v", t.name, lab.Percentile(s.late, 99), mostLate))
		}
	}
	return missed, nil
}

func (t *trial) run(ctx context.Context, c config, url, dir string) (s seen, err error) {
	file := filepath.Join(dir, t.name+".json")
	text := []byte("{")
	for i := range t.entries {
		text = fmt.Appendf(text, "%q: %s,\n", "entry-"+strconv.Itoa(i), t.definition)
	}
	text[len(text)-2] = '}'
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return s, err
	}
	state := filepath.Join(dir, t.name+".state")
	if err := t.spread(state); err != nil {
		return s, err
	}
	client, err := task.Dial(ctx, task.Config{Broker: url})
	if err != nil {
		return s, err
	}
	defer func() { _ = client.Close(ctx) }()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

	begun := time.Now()
	store, err := scheduler.NewLocal(scheduler.LocalConfig{Files: []string{file}, StateFile: state, Logger: log})
	if err != nil {
		return s, err
	}
	var mu sync.Mutex
	beat, err := scheduler.New(client, store, scheduler.Config{Logger: log, OnSent: func(_ scheduler.Run, late time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		s.late = append(s.late, late)
	}})
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- beat.Run(ctx) }()
	if err := lab.Until(ctx, time.Millisecond, func() (bool, error) { return !beat.Stats().Looked.IsZero(), nil }); err != nil {
		return s, err
	}
	s.start = time.Since(begun)
	// What reading left is collected by and by; watch from the time on when that is over.
	settled := time.After(c.span / 4)
	<-settled
	before, watched := cpu(), time.Now()
	select {
	case <-time.After(c.span):
	case <-ctx.Done():
	}
	s.idle = float64(cpu()-before) / float64(time.Since(watched))
	cancel()
	err = <-ended
	slices.Sort(s.late)
	return s, err
}

// spread writes a state file as if each entry had run at another moment.
func (t *trial) spread(path string) error {
	if t.phases == 0 {
		return nil
	}
	text := []byte("{\"gelery_beat\":1}\n")
	first := time.Now().Add(5*time.Second - t.phases) // when reading is over
	for i := range t.entries {
		last := first.Add(t.phases / time.Duration(t.entries) * time.Duration(i))
		text = fmt.Appendf(text, "{\"name\":\"entry-%d\",\"last_run_at\":%q}\n", i, last.UTC().Format(time.RFC3339Nano))
	}
	return os.WriteFile(path, text, 0o600)
}

// cpu is the CPU time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
