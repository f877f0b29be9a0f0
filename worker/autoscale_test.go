package worker

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/task"
)

// scaleLog remembers the lines about scaling.
type scaleLog struct {
	slog.Handler
	mu    sync.Mutex
	lines []string
}

func (l *scaleLog) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "Scaling") {
		l.mu.Lock()
		l.lines = append(l.lines, r.Message)
		l.mu.Unlock()
	}
	return l.Handler.Handle(ctx, r)
}

// TestAutoscale: up at once to what there is to do, down by what was not needed for the keepalive, never beyond the range.
func TestAutoscale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g := newGaugeSite(t)
		s.mux.Func("short", func(context.Context) error { return nil })
		log := &scaleLog{Handler: slog.NewTextHandler(t.Output(), nil)}
		s.start(Config{Autoscale: Autoscale{Min: 2, Max: 6}, Logger: slog.New(log)})
		expect := func(slots, running int) {
			t.Helper()
			synctest.Wait()
			st := s.worker.Stats()
			if st.Concurrency != slots || st.Autoscale.Current != slots || st.Running != running || g.now.Load() != int64(running) {
				t.Errorf("stats are %+v, %+v; expected %d slots, of which %d work", st, st.Autoscale, slots, running)
			}
		}
		expect(2, 0)
		s.sendMany(4, "second")
		after(time.Millisecond)
		expect(4, 4)
		s.sendMany(16, "second")
		after(time.Millisecond)
		expect(6, 6)
		after(10 * time.Second) // all done
		expect(6, 0)
		for range 40 { // a little work: three slots are needed
			s.sendMany(3, "second")
			after(2 * time.Second)
		}
		expect(3, 0)
		after(time.Minute)
		expect(2, 0)
		if v := strings.Join(log.lines, " "); !strings.HasPrefix(v, "Scaling up 1 processes. ") || !strings.HasSuffix(v, " Scaling down 1 processes.") {
			t.Errorf("the log says: %s", v)
		}
		if st := s.worker.Stats().Autoscale; st.Jobs != 0 {
			t.Errorf("%d jobs are left over", st.Jobs)
		}
	})
}

// TestAutoscaleKeepsBusySlots: slots that work for longer than the keepalive are needed.
func TestAutoscaleKeepsBusySlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		goOn := make(chan struct{})
		s.mux.Func("long", func(context.Context) error { <-goOn; return nil })
		s.start(Config{Autoscale: Autoscale{Max: 4, Keepalive: time.Second}})
		s.sendMany(3, "long")
		after(time.Hour)
		if st := s.worker.Stats(); st.Concurrency != 3 || st.Running != 3 {
			t.Errorf("stats are %+v", st)
		}
		close(goOn)
		after(1100 * time.Millisecond)
		if st := s.worker.Stats(); st.Concurrency != 1 {
			t.Errorf("stats are %+v", st)
		}
	})
}

// TestSetAutoscale: the slots go into the new range at once, and what is held goes by its upper end.
func TestSetAutoscale(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, g := newGaugeSite(t)
		s.start(Config{Autoscale: Autoscale{Max: 2}, PrefetchMultiplier: 1})
		s.sendMany(90, "second")
		after(time.Millisecond)
		for _, tt := range []struct{ maximum, minimum, slots int }{{5, 3, 5}, {2, 1, 2}, {8, 8, 8}} {
			if err := s.worker.SetAutoscale(tt.maximum, tt.minimum); err != nil {
				t.Fatal(err)
			}
			after(2 * time.Second)
			if st := s.worker.Stats(); st.Concurrency != tt.slots || int(g.now.Load()) != tt.slots || st.Prefetch != tt.maximum {
				t.Errorf("%+v: %d run, stats are %+v", tt, g.now.Load(), st)
			}
		}
	})
}

func TestAutoscaleConfig(t *testing.T) {
	for _, tt := range []struct {
		config   Autoscale
		variable string
		want     Autoscale
		err      string
	}{
		{config: Autoscale{}, variable: "nonsense"},
		{config: Autoscale{Max: 3}, want: Autoscale{1, 3, 30 * time.Second}},
		{config: Autoscale{Min: 2, Max: 3, Keepalive: time.Second}, variable: "5", want: Autoscale{2, 3, time.Second}},
		{config: Autoscale{Max: 3}, variable: "2.5", want: Autoscale{1, 3, 2500 * time.Millisecond}},
		{config: Autoscale{Max: 3}, variable: "soon", err: keepaliveVariable},
		{config: Autoscale{Max: 3}, variable: "-1", err: keepaliveVariable},
		{config: Autoscale{Max: 3}, variable: "NaN", err: keepaliveVariable},
		{config: Autoscale{Max: 3}, variable: "1e-12", err: keepaliveVariable},
		{config: Autoscale{Max: 3, Keepalive: -1}, err: "Keepalive"},
		{config: Autoscale{Min: 1}, err: "Max"},
		{config: Autoscale{Max: -1}, err: "Max"},
		{config: Autoscale{Min: -1, Max: 2}, err: "Min"},
		{config: Autoscale{Min: 3, Max: 2}, err: "Min"},
		{config: Autoscale{Max: maxConcurrency + 1}, err: "Max"},
	} {
		t.Setenv(keepaliveVariable, tt.variable)
		c, err := Config{Autoscale: tt.config}.withDefaults(task.Config{Queue: "celery"})
		if got := c.Autoscale; tt.err == "" && (err != nil || got != tt.want) || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%+v, %q: %+v, %v; expected %+v %s", tt.config, tt.variable, got, err, tt.want, tt.err)
		}
	}
}
