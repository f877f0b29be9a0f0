package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/redisserver"
)

// bench is one run of this program: the server, and what it found.
type bench struct {
	config
	server *redisserver.Server
	redis  *redis.Client
	place  lab.Place // of the measured processes
	missed []string
}

func newBench(ctx context.Context, c config) (*bench, error) {
	if !lab.CanPin() {
		c.redisCore, c.workCore = "", ""
	}
	b := &bench{config: c, place: lab.Place{Core: c.workCore, Procs: 1, Profile: c.profile}}
	var err error
	if b.server, err = redisserver.Start(ctx, lab.Pin(c.redisCore)...); err != nil {
		return nil, err
	}
	b.redis = redis.NewClient(&redis.Options{Addr: b.server.Addr})
	return b, nil
}

func (b *bench) close() error { return errors.Join(b.redis.Close(), b.server.Stop()) }

// start runs a side on its core.
func (b *bench) start(ctx context.Context, o lab.Order) (*lab.Process, error) {
	return b.place.Start(ctx, b.addressed(o))
}

// produce runs a side that ends by itself and returns its only report.
func (b *bench) produce(ctx context.Context, o lab.Order) (lab.Report, error) {
	return b.place.Produce(ctx, b.addressed(o))
}

func (b *bench) addressed(o lab.Order) lab.Order {
	o.Redis, o.Queue = b.server.Addr, geleryQueue
	o.Broker = "redis://" + b.server.Addr + "/0"
	o.Backend = o.Broker
	return o
}

// describe says under which conditions the figures came about.
func (b *bench) describe(ctx context.Context) string {
	version := "?"
	if info, err := b.redis.Info(ctx, "server").Result(); err == nil {
		_, rest, _ := strings.Cut(info, "redis_version:")
		version, _, _ = strings.Cut(rest, "\r\n")
	}
	placed := "not pinned (no taskset, or one core): the sides and Redis compete for the same cores"
	if b.workCore != "" {
		placed = "redis on core " + b.redisCore + ", measured process on core " + b.workCore + " with GOMAXPROCS=1"
	}
	modules := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.Contains(m.Path, "asynq") || strings.Contains(m.Path, "go-redis") {
				modules += fmt.Sprintf(", %s %s", m.Path[strings.LastIndexByte(m.Path, '/')+1:], m.Version)
			}
		}
	}
	return fmt.Sprintf("%s, redis %s, %d cores%s; %s; load %s", runtime.Version(), version, runtime.NumCPU(),
		strings.ReplaceAll(modules, ", v9 ", ", go-redis "), placed, lab.Load())
}

// require notes a bound that does not hold.
func (b *bench) require(ok bool, format string, args ...any) {
	if !ok {
		b.missed = append(b.missed, fmt.Sprintf(format, args...))
	}
}
