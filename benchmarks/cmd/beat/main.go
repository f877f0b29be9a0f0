// Command beat measures the scheduler with many entries: how long it takes until it looks for what is due, what it costs while
// nothing is, and how late runs are, spread over time and all at once each second; in Django's tables also while an entry a second is
// changed by somebody else.
//
//	go run ./cmd/beat
//	go run ./cmd/beat -entries 1000 -span 5s
//	go run ./cmd/beat -store redbeat
//	go run ./cmd/beat -store django-postgresql
//
// The entries are in a file of JSON with a state file beside it, or where -store says. The broker is a redis-server of its own, and so is
// the store's server.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// place is a store with its server.
type place interface {
	fill(ctx context.Context, t *trial) error
	open(ctx context.Context, log *slog.Logger) (scheduler.Store, error)
	// changes are the ways in which somebody else may change the n-th entry, where that makes the beat read anything.
	changes() map[string]func(ctx context.Context, n int) error
	server() (name string, pid int) // "": there is none
	close() error
}

var places = map[string]func(ctx context.Context, dir string) (place, error){
	"local": newLocal, "redbeat": newRedBeat, "django-sqlite": newSQLite, "django-postgresql": newPostgreSQL,
}

type config struct {
	entries, rate int
	span          time.Duration
	store         string
}

// Limit is lab.Config's.
func (c config) Limit() time.Duration { return 7*c.span + 3*time.Minute }

func main() {
	lab.Main("beat", nil, parse, measure)
}

func parse(args []string) (c config, err error) {
	flags := flag.NewFlagSet("beat", flag.ContinueOnError)
	flags.IntVar(&c.entries, "entries", 100_000, "entries in the store")
	flags.IntVar(&c.rate, "rate", 1_000, "runs due each second")
	flags.DurationVar(&c.span, "span", 20*time.Second, "how long each is watched")
	names := strings.Join(slices.Sorted(maps.Keys(places)), ", ")
	flags.StringVar(&c.store, "store", "local", "`where` the entries are: "+names)
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if places[c.store] == nil {
		return c, fmt.Errorf("-store %s: it is one of %s", c.store, names)
	}
	if c.entries < 1 || c.rate < 1 || c.span <= 0 || flags.NArg() > 0 {
		return c, errors.New("expected no arguments, -entries and -rate from 1, and a -span")
	}
	return c, nil
}

// trial is a beat that is watched for some time.
type trial struct {
	name    string
	entries int
	every   int           // seconds; 0: the next run is on 29 February
	phases  time.Duration // over which the entries' last moments are spread; 0: they are new
	change  func(ctx context.Context, n int) error
	first   time.Time
}

// last is when the entry has run last.
func (t *trial) last(i int) time.Time {
	if t.first.IsZero() {
		t.first = time.Now().UTC().Truncate(time.Microsecond)
		if t.phases > 0 {
			t.first = t.first.Add(t.preparing() - t.phases)
		}
	}
	if t.phases == 0 {
		return t.first
	}
	return t.first.Add(t.phases / time.Duration(t.entries) * time.Duration(i))
}

// preparing is how long writing and reading all entries may take, before the first of them is due.
func (t *trial) preparing() time.Duration {
	return time.Second + time.Duration(t.entries)*150*time.Microsecond
}

func entryName(i int) string { return "entry-" + strconv.Itoa(i) }

// seen is what a trial showed.
type seen struct {
	start    time.Duration // until the store was asked for what is due
	startCPU lab.Times     // what it cost
	idle     float64       // CPU time over time, after the start
	server   float64       // the same of the store's server
	late     []time.Duration
}

func measure(ctx context.Context, c config) (missed []string, err error) {
	broker, err := redisserver.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = broker.Stop() }()
	dir, err := os.MkdirTemp("", "gelery-beat-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p, err := places[c.store](ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	every := max(1, c.entries/c.rate)
	spread := trial{"spread", c.entries, every, time.Duration(every) * time.Second, nil, time.Time{}}
	trials := []trial{{name: "idle", entries: c.entries}, spread, {name: "each second", entries: c.rate, every: 1}}
	for _, name := range slices.Sorted(maps.Keys(p.changes())) {
		changed := spread
		changed.name, changed.change = name, p.changes()[name]
		trials = append(trials, changed)
	}
	fmt.Println("load:", lab.Load())
	for _, t := range trials {
		s, err := t.run(ctx, c, p, broker.URL)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.name, err)
		}
		fmt.Printf("%-12s %d entries: start %v, CPU %.2f %% of a core, %d runs", t.name, t.entries, s.start.Round(time.Millisecond), 100*s.idle, len(s.late))
		if len(s.late) > 0 {
			fmt.Printf(", late p50 %v, p99 %v, most %v", lab.Percentile(s.late, 50), lab.Percentile(s.late, 99), s.late[len(s.late)-1])
		}
		fmt.Println()
		if c.store != "local" {
			fmt.Printf("%-12s CPU of the start: beat %v", "", s.startCPU.Own.Round(10*time.Millisecond))
			if name, _ := p.server(); name != "" {
				fmt.Printf(", %s %v; afterwards %s %.2f %% of a core", name, s.startCPU.Server, name, 100*s.server)
			}
			fmt.Println("; load", lab.Load())
		}
		missed = append(missed, t.missed(s)...)
	}
	return missed, nil
}

func (t *trial) missed(s seen) (missed []string) {
	if s.start > mostStart {
		missed = append(missed, fmt.Sprintf("%s: start %v, want at most %v", t.name, s.start, mostStart))
	}
	if t.name == "idle" && s.idle > mostIdle {
		missed = append(missed, fmt.Sprintf("idle CPU %.2f %%, want at most 1 %%", 100*s.idle))
	}
	if t.phases > 0 && len(s.late) > 0 && lab.Percentile(s.late, 99) > mostLate { // at once they come one behind the other
		missed = append(missed, fmt.Sprintf("%s: late by %v at p99, want at most %v", t.name, lab.Percentile(s.late, 99), mostLate))
	}
	return missed
}

func (t *trial) run(ctx context.Context, c config, p place, broker string) (s seen, err error) {
	if err := p.fill(ctx, t); err != nil {
		return s, err
	}
	client, err := task.Dial(ctx, task.Config{Broker: broker})
	if err != nil {
		return s, err
	}
	defer func() { _ = client.Close(ctx) }()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))

	_, pid := p.server()
	begun, before := time.Now(), lab.TimesOf(pid)
	store, err := p.open(ctx, log)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
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
	s.startCPU = lab.TimesOf(pid).Since(before)
	// What reading left is collected by and by; watch from the time on when that is over.
	settled := c.span / 4
	if t.phases > 0 {
		settled = max(settled, time.Until(t.first.Add(t.phases)))
	}
	select {
	case <-time.After(settled):
	case <-ctx.Done():
		return s, ctx.Err()
	}
	mu.Lock()
	s.late = nil // what was due before, while all was written and read
	mu.Unlock()
	before, watched := lab.TimesOf(pid), time.Now()
	err = t.watch(ctx, c.span)
	used, span := lab.TimesOf(pid).Since(before), time.Since(watched)
	s.idle, s.server = float64(used.Own)/float64(span), float64(used.Server)/float64(span)
	cancel()
	err = errors.Join(err, <-ended)
	slices.Sort(s.late)
	return s, err
}

// watch lets the beat work, and changes an entry a second if the trial is about that.
func (t *trial) watch(ctx context.Context, span time.Duration) error {
	end := time.After(span)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-tick.C:
			if n++; t.change != nil {
				if err := t.change(ctx, n); err != nil {
					return fmt.Errorf("change: %w", err)
				}
			}
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
