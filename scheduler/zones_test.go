package scheduler

import (
	"archive/zip"
	"flag"
	"go/build"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // where the machine has no zones
)

var allChanges = flag.Bool("changes", false, "look at every change of the clock since 1972, not only at those since 2020 and at the odd ones")

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

// zones are all of the time zone database.
func zones(t *testing.T) (names []string) {
	t.Helper()
	archive, err := zip.OpenReader(filepath.Join(build.Default.GOROOT, "lib", "time", "zoneinfo.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = archive.Close() }()
	for _, f := range archive.File {
		if !strings.HasSuffix(f.Name, "/") {
			names = append(names, f.Name)
		}
	}
	if len(names) < 500 {
		t.Fatalf("there are %d zones only", len(names))
	}
	return names
}

// window is so much before and after a change of the clock.
const window = 5 * time.Hour

// TestChangesInAllZones walks through every minute around the changes of the clock in all zones, and holds the runs against the
// rule: for fixed hours what the clock shows or passes over the first time, for others what it shows.
func TestChangesInAllZones(t *testing.T) {
	t.Parallel()
	var schedules []*Crontab
	for _, text := range []string{"30 2 * * *", "*/20 0-4 * * *", "0 0,1,3 * * *", "59 23 * * *", "*/17 * * * *", "5 */2 * * *"} {
		schedules = append(schedules, must(t, text, nil))
	}
	seen := map[string]bool{}
	changes := 0
	for _, name := range zones(t) {
		z := zone(t, name)
		for p := periodAt(at(t, "1972-02-01 00:00:00"), z); !p.end.IsZero() && p.end.Year() < 2031; {
			after := periodAt(p.end, z)
			key := p.end.UTC().String() + time.Duration(p.offset).String() + time.Duration(after.offset).String()
			odd := after.offset-p.offset != 3600 && after.offset-p.offset != -3600
			if !seen[key] && (*allChanges || odd || p.end.Year() >= 2020) {
				seen[key] = true
				changes++
				around := clockAround(p.end, z)
				for _, c := range schedules {
					here := *c
					here.fields.Zone = z
					around.check(t, name, &here)
				}
			}
			p = after
		}
	}
	if changes < 500 {
		t.Errorf("there are %d changes only", changes)
	}
}

// clock is what a zone's clock shows minute by minute around a change.
type clock struct {
	change  time.Time
	shown   []civil
	highest civil // that it has shown in the day before
}

func clockAround(change time.Time, z *time.Location) clock {
	c := clock{change: change, highest: never}
	for now := change.Add(-window); now.Before(change.Add(window)); now = now.Add(time.Minute) {
		c.shown = append(c.shown, civilOf(now.In(z)))
	}
	for before := window + time.Minute; before < window+30*time.Hour; before += time.Minute {
		c.highest = max(c.highest, civilOf(change.Add(-before).In(z)))
	}
	return c
}

func (k clock) check(t *testing.T, name string, c *Crontab) {
	t.Helper()
	var want, got []time.Time
	from, highest := k.change.Add(-window), k.highest
	for i, shown := range k.shown {
		due := c.elapsing && matches(c, shown.date())
		for passed := highest + 60; !c.elapsing && passed <= shown; passed += 60 {
			due = due || matches(c, passed.date())
		}
		if due {
			want = append(want, from.Add(time.Duration(i)*time.Minute))
		}
		highest = max(highest, shown)
	}
	for next := c.Next(from.Add(-time.Second)); next.Before(k.change.Add(window)); next = c.Next(next) {
		got = append(got, next)
	}
	if !slices.EqualFunc(want, got, time.Time.Equal) {
		t.Errorf("%s, %v around %v:\ngot  %v\nwant %v", name, c, k.change.In(c.fields.Zone), got, want)
	}
}

// TestYearInAllZones: what has a fixed time runs once a day, and what follows the hours once an hour, unless a change is by half
// an hour.
func TestYearInAllZones(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, name := range zones(t) {
		z := zone(t, name)
		from, to := time.Date(2026, 1, 1, 0, 0, 0, 0, z), time.Date(2027, 1, 1, 0, 0, 0, 0, z)
		key, whole := "", true
		for p := periodAt(from, z); ; p = periodAt(p.end, z) {
			key += p.end.UTC().String() + time.Duration(p.offset).String()
			if p.end.IsZero() || p.end.After(to) {
				break
			}
			whole = whole && (periodAt(p.end, z).offset-p.offset)%3600 == 0
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		for text, want := range map[string]int{"30 2 * * *": 365, "0 0 * * *": 365, "15 * * * *": int(to.Sub(from) / time.Hour)} {
			if got := len(runs(must(t, text, z), from, to)); got != want && (whole || want == 365) {
				t.Errorf("%s: %s runs %d times in 2026, not %d", name, text, got, want)
			}
		}
	}
}
