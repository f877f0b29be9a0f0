package scheduler

import (
	"testing"
	"time"
)

// What is due after a last run, and when the next one is: Celery's own answers, as 5.2 and 5.6 give them, but for those that
// are marked. Theirs are in seconds from now.
func TestDueVectors(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		schedule  string
		last, now string
		due       bool
		next      time.Duration
		ours      string // where it is not Celery's answer, why
	}{
		{`"*/5 * * * *"`, "2026-01-01 00:00:10", "2026-01-01 00:04:59", false, time.Second, ""},
		{`"*/5 * * * *"`, "2026-01-01 00:00:10", "2026-01-01 00:05:00", true, 300 * time.Second, ""},
		{`"*/5 * * * *"`, "2026-01-01 00:00:10", "2026-01-01 03:07:00", true, 180 * time.Second, ""},
		{`"*/5 * * * *", deadline: 60`, "2026-01-01 00:00:10", "2026-01-01 03:07:00", false, 180 * time.Second, ""},
		{`"*/5 * * * *", deadline: 200`, "2026-01-01 00:00:10", "2026-01-01 03:07:00", true, 180 * time.Second, ""},
		{`"0 4 * * *"`, "2026-01-01 04:00:00", "2026-01-04 10:00:00", true, 64800 * time.Second, ""},
		{`"0 4 * * *"`, "2026-01-01 04:00:00", "2026-01-02 04:00:00", true, 86400 * time.Second, ""},
		{`"55 10 * * *"`, "2026-01-01 10:50:00", "2026-01-01 12:00:00", true, 82500 * time.Second, ""},
		{`"55 10 * * *"`, "2026-01-01 10:50:00", "2026-01-02 09:00:00", true, 6900 * time.Second, "Celery loses a later minute of the hour of the last run when the day is over"},
		{`"55 10 * * *"`, "2026-01-01 09:50:00", "2026-01-02 09:00:00", true, 6900 * time.Second, ""},
		{`"55 23 * * *"`, "2026-01-01 23:50:00", "2026-01-02 00:05:00", true, 85800 * time.Second, "the same"},
		{`"0 9 * * mon"`, "2026-01-05 09:00:00.1", "2026-01-05 09:00:05", false, 604795 * time.Second, ""},
		{`"0 0 13 * fri"`, "2026-01-01 00:00:00", "2026-01-02 00:00:00", false, 42 * 24 * time.Hour, ""},
		{`"0 0 31 * *"`, "2026-01-31 00:00:00", "2026-02-01 00:00:00", false, 58 * 24 * time.Hour, ""},
		{`"0 0 29 2 *"`, "2026-01-31 00:00:00", "2026-02-01 00:00:00", false, 758 * 24 * time.Hour, ""},
		{`30`, "2026-01-01 00:00:00", "2026-01-01 05:00:00", true, 30 * time.Second, ""},
		{`30`, "2026-01-01 00:00:00", "2026-01-01 05:00:10", true, 20 * time.Second, "Celery counts from now, here an interval keeps its beat"},
		{`3600, relative: true`, "2026-01-01 00:17:12", "2026-01-01 00:20:00", false, 40 * time.Minute, ""},
		{`86400, relative: true`, "2026-01-01 07:17:12", "2026-01-01 08:00:00", false, 16 * time.Hour, ""},
		{`90, relative: true`, "2026-01-01 00:17:12.25", "2026-01-01 00:18:00", true, 60 * time.Second, "next: Celery says 90 s from now and ends earlier when it looks again"},
		{`86400, timezone: America/New_York`, "2026-03-07 17:00:00", "2026-03-08 16:00:00", false, time.Hour, "Celery's day ends by the clock, 23 h later"},
		{`86400, timezone: America/New_York`, "2026-10-31 16:00:00", "2026-11-01 16:00:00", true, 24 * time.Hour, "Celery's day has 25 h here"},
		{`"0 3 * * *", timezone: America/New_York`, "2026-03-07 12:00:00", "2026-03-08 07:00:00", true, 24 * time.Hour, ""},
		{`"30 2 * * *", timezone: America/New_York`, "2026-03-07 07:30:00", "2026-03-08 07:00:00", true, 23*time.Hour + 30*time.Minute, "the hour that there is not: once at its end; 5.6 half an hour later"},
		{`"30 1 * * *", timezone: America/New_York`, "2026-11-01 05:30:00", "2026-11-01 06:30:00", false, 24 * time.Hour, ""},
		{`"*/15 * * * *", timezone: America/New_York`, "2026-11-01 05:45:00", "2026-11-01 06:00:00", true, 15 * time.Minute, "5.6 leaves out the second hour"},
	} {
		e := entry(t, "e", `{task: a, schedule: `+v.schedule+`}`)
		last, now := at(t, v.last), at(t, v.now)
		m, errs := plan(Record{Entry: e, State: State{LastRunAt: last}}, now)
		if len(errs) > 0 || (len(m.Runs) == 1) != v.due || len(m.Runs) > 1 || m.Next.Sub(now) != v.next {
			t.Errorf("%s after %s at %s: %d runs, next in %v, %v; want %t, %v %s", v.schedule, v.last, v.now, len(m.Runs), m.Next.Sub(now), errs, v.due, v.next, v.ours)
		}
	}
}

// What is missed is found in a few steps, however much it is.
func TestLatest(t *testing.T) {
	t.Parallel()
	start := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, text := range []string{"30", "0.001", "90, relative: true", `"* * * * *"`, `"*/7 3-5 * * mon"`, `"0 0 29 2 *"`, `"@daily"`, `{solar: sunset, latitude: 52, longitude: 13}`} {
		s := entry(t, "e", `{task: a, schedule: `+text+`}`).Schedule
		asked := 0
		counted := asking{s, &asked}
		for i, span := range []time.Duration{time.Minute, time.Hour, 26 * time.Hour, 400 * 24 * time.Hour} {
			until := start.Add(span + 17*time.Second)
			var want time.Time
			for m := next(s, start); !m.IsZero() && !m.After(until) && i < 3 && text != "0.001"; m = next(s, m) {
				want = m
			}
			var got time.Time
			if interval, ok := s.(*Interval); ok {
				got = latest(interval, start, until)
			} else {
				got = latest(counted, start, until)
			}
			if i < 3 && text != "0.001" && !got.Equal(want) {
				t.Errorf("%s within %v: %v, want %v", text, span, got, want)
			}
			if !got.IsZero() && (!got.After(start) || got.After(until) || !next(s, got).After(until)) {
				t.Errorf("%s within %v: %v is not the latest", text, span, got)
			}
		}
		if asked > 4*2000 {
			t.Errorf("%s: asked %d times", text, asked)
		}
		two := moments(s, start, start.Add(400*24*time.Hour), 2)
		if text != `"0 0 29 2 *"` && (len(two) != 2 || !two[0].Before(two[1]) || !next(s, two[0]).Equal(two[1]) && text != "0.001") {
			t.Errorf("%s: the latest two are %v", text, two)
		}
	}
}

// asking counts how often a schedule is asked.
type asking struct {
	Schedule
	asked *int
}

func (c asking) Next(t time.Time) time.Time {
	*c.asked++
	return c.Schedule.Next(t)
}
