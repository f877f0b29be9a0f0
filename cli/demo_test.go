package cli

import (
	"context"
	"errors"
	"math"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

func TestAdd(t *testing.T) {
	t.Parallel()
	big63 := new(big.Int).Lsh(big.NewInt(1), 63)
	huge := new(big.Int).Exp(big.NewInt(10), big.NewInt(400), nil)
	tests := []struct {
		x, y, want any
		class      string // of the error
	}{
		{x: int64(2), y: int64(3), want: int64(5)},
		{x: int64(2), y: int64(0), want: int64(2)},
		{x: int64(-2), y: int64(-3), want: int64(-5)},
		{x: int64(math.MaxInt64), y: int64(1), want: big63},
		{x: int64(math.MinInt64), y: int64(-1), want: new(big.Int).Sub(new(big.Int).Neg(big63), big.NewInt(1))},
		{x: big63, y: int64(1), want: new(big.Int).Add(big63, big.NewInt(1))},
		{x: 1.5, y: int64(1), want: 2.5},
		{x: int64(1), y: 1.0, want: 2.0},
		{x: big63, y: 0.0, want: 9223372036854775808.0},
		{x: huge, y: 1.0, class: "OverflowError"},
		{x: int64(1), y: "2", class: "TypeError"},
		{x: nil, y: int64(1), class: "TypeError"},
		{x: true, y: int64(1), class: "TypeError"},
	}
	for _, tt := range tests {
		got, err := add(t.Context(), addArgs{tt.x, tt.y})
		if tt.class != "" {
			if !errors.Is(err, task.PyError(tt.class)) {
				t.Errorf("%v + %v: %v, want a %s", tt.x, tt.y, err, tt.class)
			}
			continue
		}
		same := cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })
		if d := cmp.Diff(tt.want, got, same); d != "" || err != nil {
			t.Errorf("%v + %v: %s, %v", tt.x, tt.y, d, err)
		}
	}
}

func TestSleep(t *testing.T) {
	t.Parallel()
	for _, seconds := range []any{int64(0), 0.001} {
		if got, err := sleep(t.Context(), sleepArgs{seconds}); got != seconds || err != nil {
			t.Errorf("%v: got %v, %v", seconds, got, err)
		}
	}
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	begun := time.Now()
	if _, err := sleep(ctx, sleepArgs{int64(3600)}); !errors.Is(err, stop) || time.Since(begun) > testLimit {
		t.Errorf("cancelled: %v after %v", err, time.Since(begun))
	}
	for seconds, class := range map[any]string{int64(-1): "ValueError", "1": "TypeError", math.Inf(1): "ValueError"} {
		if _, err := sleep(t.Context(), sleepArgs{seconds}); !errors.Is(err, task.PyError(class)) {
			t.Errorf("%v: %v, want a %s", seconds, err, class)
		}
	}
}

// TestDemoLeavesTheUsersTasks registers the demo beside a task that has one of its names.
func TestDemoLeavesTheUsersTasks(t *testing.T) {
	t.Parallel()
	mux := worker.NewMux()
	mux.Func("dev.add", func(x int) (int, error) { return x, nil })
	mux.Func("mine", func() {})
	addDemo(mux)
	if d := cmp.Diff([]string{"dev.add", "dev.echo", "dev.fail", "dev.progress", "dev.sleep", "mine"}, mux.Names()); d != "" {
		t.Error(d)
	}
}
