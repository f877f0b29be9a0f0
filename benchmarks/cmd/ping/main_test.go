package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
	"github.com/gelery/gelery/internal/redisserver"
)

// TestMain lets this test program be the worker, as the command is its own.
func TestMain(m *testing.M) {
	if code, ok := lab.RunSide(sides); ok {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// TestMeasure: the bound is judged. What holds is the machine's own affair beside other tests.
func TestMeasure(t *testing.T) {
	for most, misses := range map[time.Duration]int{time.Nanosecond: 1, time.Hour: 0} {
		missed, err := measure(t.Context(), config{brokers: []string{"redis"}, pings: 5, concurrency: 4, most: most})
		if errors.Is(err, redisserver.ErrNotInstalled) && os.Getenv("GELERY_TEST_SERVERS") != "required" {
			t.Skip(err)
		}
		if err != nil || len(missed) != misses {
			t.Errorf("at most %v: missed %q, %v", most, missed, err)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := parse(nil)
	if err != nil || len(c.brokers) != 2 || c.pings != 100 || c.concurrency != 4 || c.most != 100*time.Millisecond {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range [][]string{{"-brokers", "kafka"}, {"-pings", "0"}, {"-concurrency", "0"}, {"extra"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
