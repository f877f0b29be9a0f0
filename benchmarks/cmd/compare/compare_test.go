package main

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/redisserver"
)

// TestMain lets this test program be the measured process, as the command is its own.
func TestMain(m *testing.M) {
	if code, ok := lab.RunSide(sides); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func testBench(t *testing.T, c config) (*bench, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c.redisCore, c.workCore = "0", "1"
	b, err := newBench(ctx, c)
	if errors.Is(err, redisserver.ErrNotInstalled) && os.Getenv("GELERY_TEST_SERVERS") != "required" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	return b, ctx
}

func TestDrainAndEnqueueOfBothSystems(t *testing.T) {
	t.Parallel()
	b, ctx := testBench(t, config{tasks: 200})
	for _, s := range []system{geleryKeys, asynqKeys} {
		if r, err := b.drain(ctx, s, lab.Order{Concurrency: 10}); err != nil || r.Rate <= 0 {
			t.Errorf("%s: drain: %+v, %v", s.name, r, err)
		}
		for _, o := range []lab.Order{{}, {Producers: 3}, {Batch: 7, Producers: 3}} {
			if r, err := b.enqueue(ctx, s, o); err != nil || r.Rate <= 0 {
				t.Errorf("%s: enqueue %+v: %+v, %v", s.name, o, r, err)
			}
		}
	}
}

// A run of which a result is missing, wrong or not a success is an error and not a figure.
func TestVerifyFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	for _, s := range []system{geleryKeys, asynqKeys} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b, ctx := testBench(t, config{tasks: 100})
			if _, err := b.drain(ctx, s, lab.Order{Concurrency: 10}); err != nil {
				t.Fatal(err)
			}
			keys, err := b.redis.Keys(ctx, s.results).Result()
			if err != nil || len(keys) != 100 {
				t.Fatalf("%d results, %v; expected 100", len(keys), err)
			}
			if err := b.redis.Del(ctx, keys[0]).Err(); err != nil {
				t.Fatal(err)
			}
			if err := b.verify(ctx, s); err == nil {
				t.Error("a result is missing and nobody says so")
			}
			if s.name == geleryKeys.name {
				err = b.redis.Set(ctx, keys[0], `{"status": "FAILURE", "result": 1}`, 0).Err()
			} else {
				err = b.redis.HSet(ctx, keys[0], "state", "archived", "result", "1").Err()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := b.verify(ctx, s); err == nil {
				t.Error("a task has failed and nobody says so")
			}
		})
	}
}

func TestBoundsAreNoted(t *testing.T) {
	t.Parallel()
	b := &bench{}
	b.require(true, "held")
	b.require(false, "ratio %.1f", 1.5)
	if len(b.missed) != 1 || b.missed[0] != "ratio 1.5" {
		t.Errorf("missed: %q", b.missed)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"-only", "drain,memory", "-concurrency", "1,7"})
	if err != nil || len(c.only) != 2 || len(c.concurrency) != 2 || c.concurrency[1] != 7 || c.minDrain != 2.5 || c.minEnqueue != 1.5 {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range [][]string{{"-only", "all"}, {"-concurrency", "0"}, {"-pairs", "0"}, {"-tasks", "5"}, {"extra"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
