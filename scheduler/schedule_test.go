package scheduler

import (
	"testing"
	"time"

	"github.com/robfig/cron/v3"
)

var (
	_ cron.Schedule = (*Crontab)(nil)
	_ cron.Schedule = (*Interval)(nil)
	_ cron.Schedule = Clocked{}
	_ cron.Schedule = Schedule(nil)
)

func TestClocked(t *testing.T) {
	t.Parallel()
	moment := at(t, "2026-01-01 12:00:00")
	c := Clocked{At: moment}
	if got := c.Next(moment.Add(-time.Second)); !got.Equal(moment) {
		t.Errorf("before it: %v", got)
	}
	for _, now := range []time.Time{moment, moment.Add(time.Hour)} {
		if got := c.Next(now); !got.IsZero() {
			t.Errorf("at %v: %v", now, got)
		}
	}
}

func TestIntervalRefused(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, -time.Second, time.Nanosecond, 200 * 365 * 24 * time.Hour} {
		if s, err := Every(d); err == nil {
			t.Errorf("every %v is taken for %v", d, s)
		}
	}
	if s, err := EveryRelative(time.Millisecond, nil); err == nil {
		t.Errorf("a relative millisecond is taken for %v", s)
	}
}

func TestCronLines(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"30 4 1 * mon": "2026-01-05 04:30:00", // the first or a Monday
		"@daily":       "2026-01-02 00:00:00",
		"@every 90s":   "2026-01-01 10:01:30",
		"0 0 29 2 *":   "2028-02-29 00:00:00",
	} {
		s, err := ParseCron(line, nil)
		if err != nil {
			t.Error(err)
		} else if got := s.Next(at(t, "2026-01-01 10:00:00")); !got.Equal(at(t, want)) {
			t.Errorf("%s: %v", line, got)
		}
	}
	berlin, err := ParseCron("0 9 * * *", zone(t, "Europe/Berlin"))
	if got := berlin.Next(at(t, "2026-01-01 10:00:00")); err != nil || !got.Equal(at(t, "2026-01-02 08:00:00")) {
		t.Errorf("in Berlin: %v, %v", got, err)
	}
	for _, line := range []string{"", "* * * *", "TZ=", "TZ=Europe/Berlin", "CRON_TZ=Europe/Berlin 0 0 * * *", "0 0 30 2 *", "sat-mon", "* * * * * *", "@never"} {
		if s, err := ParseCron(line, nil); err == nil {
			t.Errorf("%q is taken for %v", line, s)
		}
	}
}

// FuzzParse wants an answer to any text within a moment, and of what is taken runs that come one after the other.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"*/5 * * * *", "0 0 29 2 7", "1-3-5 * * * *", "TZ= ", "@every 1ns", "5/15 ? jan mon,,", "50-10/5 22-4/3 31 */61 fri-mon"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, parse := range []func() (Schedule, error){
			func() (Schedule, error) { return ParseCron(text, nil) },
			func() (Schedule, error) { return ParseCrontab(text, nil) },
		} {
			s, err := parse()
			if err != nil {
				continue
			}
			now := at(t, "2026-01-01 00:00:00")
			for range 3 {
				next := s.Next(now)
				if next.IsZero() {
					break
				}
				if !next.After(now) {
					t.Errorf("%q: after %v comes %v", text, now, next)
				}
				now = next
			}
		}
	})
}
