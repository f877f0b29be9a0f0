package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisserver"
)

// bench is one run of this program: the server, and what it found.
type bench struct {
	config
	server *redisserver.Server
	redis  *redis.Client
	pin    bool
	missed []string
}

func newBench(ctx context.Context, c config) (*bench, error) {
	b := &bench{config: c}
	if _, err := exec.LookPath("taskset"); err == nil && runtime.NumCPU() > 1 {
		b.pin = true
	}
	var err error
	if b.server, err = redisserver.Start(ctx, b.on(c.redisCore)...); err != nil {
		return nil, err
	}
	b.redis = redis.NewClient(&redis.Options{Addr: b.server.Addr})
	return b, nil
}

func (b *bench) close() error { return errors.Join(b.redis.Close(), b.server.Stop()) }

// on is the command that pins what follows to a core; nothing where that cannot be done.
func (b *bench) on(core string) []string {
	if !b.pin {
		return nil
	}
	return []string{"taskset", "-c", core}
}

// describe says under which conditions the figures came about.
func (b *bench) describe(ctx context.Context) string {
	version := "?"
	if info, err := b.redis.Info(ctx, "server").Result(); err == nil {
		_, rest, _ := strings.Cut(info, "redis_version:")
		version, _, _ = strings.Cut(rest, "\r\n")
	}
	placed := "not pinned (no taskset, or one core): the sides and Redis compete for the same cores"
	if b.pin {
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
		strings.ReplaceAll(modules, ", v9 ", ", go-redis "), placed, load())
}

// require notes a bound that does not hold.
func (b *bench) require(ok bool, format string, args ...any) {
	if !ok {
		b.missed = append(b.missed, fmt.Sprintf(format, args...))
	}
}
