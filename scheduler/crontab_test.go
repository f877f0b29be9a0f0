package scheduler

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func members(s set) (all []int) {
	for n := range 64 {
		if s.has(n) {
			all = append(all, n)
		}
	}
	return all
}

func between(from, to int) (all []int) {
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

func TestFields(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		field *cronField
		text  string
		want  []int
	}{
		{&minuteField, "*/15", []int{0, 15, 30, 45}},
		{&minuteField, "*/7", []int{0, 7, 14, 21, 28, 35, 42, 49, 56}},
		{&dayField, "*/3", []int{1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31}},
		{&monthField, "*/3", []int{1, 4, 7, 10}},
		{&minuteField, "10-20/5", []int{10, 15, 20}},
		{&minuteField, "50-10", append(between(0, 10), between(50, 59)...)},
		{&minuteField, "50-10/5", []int{0, 5, 10, 50, 55}},
		{&hourField, "22-4/3", []int{1, 4, 22}},
		{&minuteField, "1,13,30-45,50-59/2", append(append([]int{1, 13}, between(30, 45)...), 50, 52, 54, 56, 58)},
		{&minuteField, "*/61", []int{0}},
		{&minuteField, "00", []int{0}},
		{&minuteField, "05", []int{5}},
		{&minuteField, "1, 5", []int{1, 5}},
		{&minuteField, "?", between(0, 59)},
		{&weekdayField, "mon-fri", between(1, 5)},
		{&weekdayField, "Monday-FRIDAY", between(1, 5)},
		{&weekdayField, "fri-mon", []int{0, 1, 5, 6}},
		{&weekdayField, "sat-sun", []int{0, 6}},
		{&weekdayField, "sun-sat", between(0, 6)},
		{&weekdayField, "7", []int{0}},
		{&weekdayField, "5-7", []int{0, 5, 6}},
		{&weekdayField, "7-2", []int{0, 1, 2}},
		{&weekdayField, "0-7", between(0, 6)},
		{&monthField, "jan-mar", []int{1, 2, 3}},
		{&monthField, "january", []int{1}},
		{&monthField, "nov-feb", []int{1, 2, 11, 12}},
	} {
		got, err := tt.field.parse(tt.text)
		if diff := cmp.Diff(tt.want, members(got)); diff != "" || err != nil {
			t.Errorf("%s %q: %v\n%s", tt.field.name, tt.text, err, diff)
		}
	}
}

func TestFieldsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		field *cronField
		text  string
		want  string // in the message
	}{
		{&minuteField, "*/0", "a step is a whole number from 1 on"},
		{&minuteField, "*/-1", "a step is"},
		{&minuteField, "*/", "a step is"},
		{&minuteField, "*/x", "a step is"},
		{&minuteField, "1-5/2/2", "a step is"},
		{&minuteField, "5/15", "as in 5-59/15 or */15"},
		{&minuteField, "1-3-5", `"3-5" is not among the numbers from 0 to 59`},
		{&minuteField, "L", `"L" is not among`},
		{&minuteField, "15W", "is not among"},
		{&minuteField, "1#2", "is not among"},
		{&minuteField, "60", "60 is not among"},
		{&minuteField, "-1", "is empty"},
		{&minuteField, "1,", "is empty"},
		{&minuteField, "1_0", "is not among"},
		{&minuteField, "٣", "is not among"},
		{&minuteField, "99999999999999999999", "is not among"},
		{&minuteField, "jan", "is not among"},
		{&weekdayField, "mon/2", "a step needs a range before it"},
		{&weekdayField, "mo", "the names from sunday to saturday"},
		{&weekdayField, "thursdayish", "is not among"},
		{&weekdayField, "8", "8 is not among"},
		{&weekdayField, "jan", "is not among"},
		{&monthField, "mon", "is not among"},
		{&monthField, "0", "0 is not among the numbers from 1 to 12"},
		{&dayField, "32", "32 is not among"},
		{&minuteField, strings.Repeat("1,", 600) + "1", "longer than 1000"},
	} {
		if got, err := tt.field.parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %q: got %v, %v, want an error with %q", tt.field.name, tt.text, members(got), err, tt.want)
		}
	}
}

func TestCrontabRefused(t *testing.T) {
	t.Parallel()
	for want, fields := range map[string]CrontabFields{
		"day_of_month": {DayOfMonth: "30", MonthOfYear: "feb"},
		"hour":         {Hour: "24"},
		"minute":       {Minute: " "},
	} {
		var e *FieldError
		if _, err := NewCrontab(fields); !errors.As(err, &e) || e.Field != want {
			t.Errorf("%+v: %v", fields, err)
		}
	}
	for _, fields := range []CrontabFields{{DayOfMonth: "30,29", MonthOfYear: "2"}, {DayOfMonth: "31", MonthOfYear: "feb-apr"}} {
		if _, err := NewCrontab(fields); err != nil {
			t.Errorf("%+v: %v", fields, err)
		}
	}
	for _, text := range []string{"", "* * * *", "* * * * * *", "@daily", "a b c d e"} {
		if c, err := ParseCrontab(text, nil); err == nil {
			t.Errorf("%q is taken for %v", text, c)
		}
	}
}

// must parses what a test knows to be right.
func must(t testing.TB, text string, zone *time.Location) *Crontab {
	t.Helper()
	c, err := ParseCrontab(text, zone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	parsed, err := time.Parse("2006-01-02 15:04:05.999", text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// runs lists the runs of a day of UTC.
func runs(s Schedule, from, to time.Time) (all []string) {
	for next := s.Next(from.Add(-time.Nanosecond)); !next.IsZero() && next.Before(to); next = s.Next(next) {
		all = append(all, next.UTC().Format("15:04"))
	}
	return all
}

// TestClockChanges is New York in 2026: on 8 March 02:00 is followed by 03:00 (07:00Z), on 1 November 02:00 by 01:00 (06:00Z).
func TestClockChanges(t *testing.T) {
	t.Parallel()
	newYork := zone(t, "America/New_York")
	spring, autumn := at(t, "2026-03-08 05:30:00"), at(t, "2026-11-01 04:30:00")
	for _, tt := range []struct {
		text   string
		day    time.Time
		length time.Duration
		want   []string
	}{
		{"30 2 * * *", spring, 20 * time.Hour, []string{"07:00"}},
		{"0,30 2,3 * * *", spring, 20 * time.Hour, []string{"07:00", "07:30"}},
		{"0 12 * * *", spring, 20 * time.Hour, []string{"16:00"}},
		{"15 * * * *", spring, 3 * time.Hour, []string{"06:15", "07:15", "08:15"}},
		{"30 */2 * * *", spring, 4 * time.Hour, []string{"05:30", "08:30"}},
		{"30 1 * * *", autumn, 20 * time.Hour, []string{"05:30"}},
		{"*/20 1 * * *", autumn, 20 * time.Hour, []string{"05:00", "05:20", "05:40"}},
		{"0 1,2 * * *", autumn, 20 * time.Hour, []string{"05:00", "07:00"}},
		{"*/30 * * * *", autumn, 3 * time.Hour, []string{"04:30", "05:00", "05:30", "06:00", "06:30", "07:00"}},
		{"30 0-23 * * *", autumn, 3 * time.Hour, []string{"04:30", "05:30", "06:30"}},
	} {
		if diff := cmp.Diff(tt.want, runs(must(t, tt.text, newYork), tt.day, tt.day.Add(tt.length))); diff != "" {
			t.Errorf("%s on %s:\n%s", tt.text, tt.day.Format("2 January"), diff)
		}
	}
}

// TestRelativeDays: midnight after midnight, also where a day has 23 or 25 hours.
func TestRelativeDays(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"America/New_York", "America/Santiago", "Asia/Beirut"} { // the others change at midnight
		daily, err := EveryRelative(24*time.Hour, zone(t, name))
		if err != nil {
			t.Fatal(err)
		}
		day := at(t, "2026-01-01 12:00:00").In(zone(t, name))
		for range 365 {
			next := daily.Next(day)
			y, m, d := day.Date()
			ny, nm, nd := next.Date()
			if want := time.Date(y, m, d+1, 12, 0, 0, 0, time.UTC); !time.Date(ny, nm, nd, 12, 0, 0, 0, time.UTC).Equal(want) || next.Hour() > 1 {
				t.Fatalf("%s: %v is followed by %v", name, day, next)
			}
			day = next
		}
	}
}

// TestNextMatches holds Next against looking at every minute.
func TestNextMatches(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(texts ...string) string { return texts[random.IntN(len(texts))] }
	for range 300 {
		c := must(t, strings.Join([]string{pick("*", "0", "*/7", "58-3", "13,47"), pick("*", "0", "*/5", "22-3", "9-17"),
			pick("*", "1", "31", "13", "28-2"), pick("*", "*/2", "2,12"), pick("*", "mon-fri", "sun", "6")}, " "), nil)
		from := time.Unix(1767225600+random.Int64N(3*365*86400), 0).UTC()
		want := from.Truncate(time.Minute).Add(time.Minute)
		for limit := want.AddDate(1, 0, 0); want.Before(limit) && !matches(c, want); want = want.Add(time.Minute) {
			if want.Hour() == 0 && want.Minute() == 0 && !(c.months.has(int(want.Month())) && c.days.has(want.Day()) && c.weekdays.has(int(want.Weekday()))) {
				want = want.Add(24*time.Hour - time.Minute)
			}
		}
		if got := c.Next(from); !got.Equal(want) && matches(c, want) {
			t.Errorf("%v after %v: got %v, want %v", c, from, got, want)
		}
	}
}

func matches(c *Crontab, t time.Time) bool {
	return c.minutes.has(t.Minute()) && c.hours.has(t.Hour()) && c.days.has(t.Day()) && c.months.has(int(t.Month())) && c.weekdays.has(int(t.Weekday()))
}

func TestFarAway(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"0 0 29 2 sun": "2032-02-29 00:00:00", "0 0 29 2 mon": "2044-02-29 00:00:00"} {
		if got := must(t, text, nil).Next(at(t, "2026-01-01 00:00:00")); !got.Equal(at(t, want)) {
			t.Errorf("%s: %v", text, got)
		}
	}
	if got := must(t, "0 0 29 2 mon", nil).Next(at(t, "2072-03-01 00:00:00")); got.IsZero() || got.Month() != time.February {
		t.Errorf("over 2100: %v", got)
	}
}

func BenchmarkCrontabNext(b *testing.B) {
	c, from := must(b, "*/5 8-18 * * mon-fri", zone(b, "Europe/Berlin")), at(b, "2026-01-01 00:00:00")
	for b.Loop() {
		c.Next(from)
	}
}
