package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
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

// TestShortForm: none early, none missing, none twice, and little memory. How late they are is the machine's own affair
// beside other tests.
func TestShortForm(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := parse([]string{"-tasks", "20000", "-rate", "5000", "-max-late", "30s"})
	if err != nil {
		t.Fatal(err)
	}
	missed, err := measure(ctx, c)
	if errors.Is(err, redisserver.ErrNotInstalled) && os.Getenv("GELERY_TEST_SERVERS") != "required" {
		t.Skip(err)
	}
	if err != nil || len(missed) > 0 {
		t.Errorf("missed %q, %v", missed, err)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	ledger := func(runs ...int64) *bytes.Reader {
		var b []byte
		for _, n := range runs {
			b = binary.LittleEndian.AppendUint64(b, uint64(n))
		}
		return bytes.NewReader(b)
	}
	late := int64(2 * time.Second)
	for _, tt := range []struct {
		name   string
		ledger *bytes.Reader
		peak   float64
		want   []string
	}{
		{"good", ledger(0, 1, 1, 1, 2, 1), 1, nil},
		{"missing", ledger(0, 1, 2, 1), 1, []string{"1 tasks did not run"}},
		{"twice", ledger(0, 1, 1, 1, 2, 1, 0, 1), 1, []string{"1 tasks ran twice"}},
		{"early", ledger(0, 1, 1, 1, 2, -1), 1, []string{"1 tasks ran early"}},
		{"late", ledger(0, 1, 1, late, 2, 1), 1, []string{"the latest task began 2s after"}},
		{"large", ledger(0, 1, 1, 1, 2, 1), 200, []string{"the worker had 200.0 MiB"}},
		{"none", ledger(), 1, []string{"3 tasks did not run"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := &bench{config: config{tasks: 3, maxMemory: 150, maxLate: time.Second}}
			if err := b.judge(tt.ledger, tt.peak); err != nil {
				t.Fatal(err)
			}
			if len(b.missed) != len(tt.want) || len(tt.want) > 0 && !strings.HasPrefix(b.missed[0], tt.want[0]) {
				t.Errorf("missed %q; want %q", b.missed, tt.want)
			}
		})
	}
	b := &bench{config: config{tasks: 3}}
	if err := b.judge(ledger(7, 0), 1); err == nil {
		t.Error("a task that was never sent is no error")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := parse(nil)
	if err != nil || c.tasks != 1_000_000 || c.rate != 2000 || c.lead != 100*time.Second || c.maxMemory != 150 || c.maxLate != time.Second {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range [][]string{{"-tasks", "1"}, {"-rate", "0"}, {"-lead", "1ms"}, {"-broker", "kafka"}, {"-concurrency", "0"}, {"extra"}} {
		if _, err := parse(bad); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
}
