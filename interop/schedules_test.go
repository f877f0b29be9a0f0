package interop

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/scheduler"
)

var (
	crontabCases = flag.Int("crontabs", 10_000, "random crontabs to ask each Celery version about")
	crontabSeed  = flag.Uint64("crontabs-seed", 1, "which random crontabs")
)

// crontabCase is a crontab that both sides are asked about: the fields in the order of Celery's arguments.
type crontabCase struct {
	fields [5]string
	zone   string
	last   int64 // seconds since 1970, a whole minute or one second more
}

func (c crontabCase) String() string {
	return fmt.Sprintf("%q in %s after %d", c.fields, c.zone, c.last)
}

var crontabLimits = [5]struct {
	min, max int
	names    []string
}{
	{0, 59, nil}, {0, 23, nil},
	{0, 6, []string{"sun", "Mon", "tuesday", "WED", "thu", "friday", "sat"}},
	{1, 31, nil},
	{1, 12, []string{"jan", "Feb", "march", "APR", "may", "june", "jul", "aug", "september", "oct", "nov", "dec"}},
}

// oddParts are what is wrong, or taken by one side alone.
var oddParts = []string{"", "60", "7", "0-7", "*/0", "*/", "5/15", "1-3-5", "mon/2", "L", "15W", "1#2", "?", "-1", "*/61", "00", "jan", "mon",
	"thursdayish", "mo", "1 ", " 2", "50-10/5", "1-5/2/2", "*/2-3", "32", "0", "99999999999999999999"}

func randomField(r *rand.Rand, i int) string {
	limits := crontabLimits[i]
	number := func() string {
		n := limits.min + r.IntN(limits.max-limits.min+1)
		if limits.names != nil && r.IntN(3) == 0 {
			return limits.names[n-limits.min]
		}
		return fmt.Sprint(n)
	}
	var parts []string
	for range 1 + r.IntN(3)*r.IntN(2) {
		switch r.IntN(20) {
		case 0:
			parts = append(parts, oddParts[r.IntN(len(oddParts))])
		case 1, 2, 3, 4, 5:
			parts = append(parts, number())
		case 6, 7, 8, 9:
			parts = append(parts, number()+"-"+number())
		case 10, 11:
			parts = append(parts, fmt.Sprintf("%s-%s/%d", number(), number(), 1+r.IntN(9)))
		case 12, 13, 14:
			parts = append(parts, fmt.Sprintf("*/%d", 1+r.IntN(limits.max)))
		default:
			return "*"
		}
	}
	return strings.Join(parts, ",")
}

// TestCrontabs asks Celery's crontab of two versions and ours about the same random crontabs. Whatever differs must be one of
// the differences that are known.
func TestCrontabs(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"5.2", "5.6"} {
		t.Run("celery-"+name, func(t *testing.T) {
			t.Parallel()
			v := FindVersion(t, name)
			driver := v.startDriver(t, v.Command(t, Settings{}, "python", "schedules.py"))
			random := rand.New(rand.NewPCG(*crontabSeed, 0))
			counts := map[string]int{}
			Crossing{Version: v, Stack: Stack{Broker: "none", Backend: "none"}}.To(PythonToGo).Cell(t, "crontabs", func(t *testing.T) {
				for left := *crontabCases; left > 0; left -= 500 {
					compareCrontabs(t, v, driver, random, min(left, 500), counts)
				}
				t.Log(counts)
				if n := *crontabCases; counts["the same"] < n/3 || counts["both refuse"] < n/100 {
					t.Errorf("too few cases say anything: %v", counts)
				}
			})
		})
	}
}

func compareCrontabs(t *testing.T, v Version, driver *Driver, random *rand.Rand, n int, counts map[string]int) {
	t.Helper()
	cases := make([]crontabCase, n)
	args := make([]any, n)
	for i := range cases {
		c := &cases[i]
		for f := range c.fields {
			c.fields[f] = randomField(random, f)
		}
		c.zone = []string{"UTC", "UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Sydney"}[random.IntN(6)]
		c.last = 1767225600 + random.Int64N(4*365*24*60)*60 + random.Int64N(2) // 2026 and after
		args[i] = []any{c.fields[0], c.fields[1], c.fields[2], c.fields[3], c.fields[4], c.zone, c.last}
	}
	answer := driver.Do(t, Command{Op: "crontabs", Args: args})
	var theirs []struct {
		Error string
		Next  int64
	}
	if err := json.Unmarshal(answer.Value, &theirs); err != nil || len(theirs) != n {
		t.Fatalf("%s %s: %v, %d answers", answer.Kind, answer.Error, err, len(theirs))
	}
	for i, c := range cases {
		outcome := c.compare(t, v, theirs[i].Next, theirs[i].Error)
		if counts[outcome]++; outcome == "" {
			t.Errorf("%v: Celery says %+v", c, theirs[i])
		}
	}
}

// compare names what came of it, "" for a difference that nothing explains.
func (c crontabCase) compare(t *testing.T, v Version, theirs int64, refused string) string {
	t.Helper()
	zone, err := time.LoadLocation(c.zone)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := scheduler.NewCrontab(scheduler.CrontabFields{Minute: c.fields[0], Hour: c.fields[1], DayOfWeek: c.fields[2],
		DayOfMonth: c.fields[3], MonthOfYear: c.fields[4], Zone: zone})
	switch {
	case err != nil && refused != "":
		return "both refuse"
	case err != nil:
		return explain("refused here, not heeded there: ", ignoredThere, c.fields)
	case refused != "":
		if v.AtLeast("5.5") {
			return explain("taken here: ", takenHere[:1], c.fields)
		}
		return explain("taken here: ", takenHere, c.fields)
	}
	last := time.Unix(c.last, 0)
	next := ours.Next(last).Unix()
	switch {
	case next == theirs:
		return "the same"
	case c.zone == "UTC" || c.zone == "Asia/Kolkata":
		t.Errorf("Gelery says %d", next)
		return ""
	}
	for _, moment := range []int64{c.last, next, theirs} {
		if changes(zone, moment-3*3600, moment+3*3600) {
			return "another rule at a change of the clock"
		}
	}
	if d := next - theirs; !v.AtLeast("5.3") && (d == 3600 || d == -3600) && changes(zone, c.last, next) {
		return "pytz counts by the clock of the last run" // and beat asks again then
	}
	if !v.AtLeast("5.3") && theirs > next && last.UTC().Day() != last.In(zone).Day() {
		return "midnight in UTC, already over where the evening is late"
	}
	t.Errorf("Gelery says %d", next)
	return ""
}

func changes(zone *time.Location, from, to int64) bool {
	_, a := time.Unix(from, 0).In(zone).Zone()
	_, b := time.Unix(to, 0).In(zone).Zone()
	return a != b
}

// Forms that are known to be taken by one side alone.
type form struct {
	name string
	text *regexp.Regexp // of a part
}

var (
	ignoredThere = []form{
		{"what follows is left out", regexp.MustCompile(`^\w+-\w+-|^\*/\w+-|/\w+/`)},
		{"the step after a name", regexp.MustCompile(`^[A-Za-z]+/`)},
		{"letters after a name", regexp.MustCompile(`thursdayish`)},
		{"a name in another field", regexp.MustCompile(`(?i)^(jan|mon)$`)},
	}
	takenHere = []form{
		{"7, ? and spaces, and nothing at all", regexp.MustCompile(`^7$|^0-7$|^\?$|^ | $|^$`)},
		{"names of months", regexp.MustCompile(`(?i)jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec`)},
	}
)

func explain(what string, forms []form, fields [5]string) string {
	for _, f := range forms {
		for _, field := range fields {
			for part := range strings.SplitSeq(field, ",") {
				if f.text.MatchString(part) {
					return what + f.name
				}
			}
		}
	}
	return ""
}

// TestSolar asks Celery, which asks ephem, when the sun does what, at random places up to 60 degrees from the equator. Where both
// have an answer, they are within a minute of each other.
func TestSolar(t *testing.T) {
	t.Parallel()
	v := FindVersion(t, "5.6")
	driver := v.startDriver(t, v.Command(t, Settings{}, "python", "schedules.py"))
	random := rand.New(rand.NewPCG(5, 6))
	events := []string{"dawn_astronomical", "dawn_nautical", "dawn_civil", "sunrise", "solar_noon", "sunset", "dusk_civil", "dusk_nautical", "dusk_astronomical"}
	type place struct {
		event               string
		latitude, longitude float64
		last                int64
	}
	var places []place
	var args []any
	for i := range 900 {
		p := place{events[i%len(events)], random.Float64()*120 - 60, random.Float64()*360 - 180, 1767225600 + random.Int64N(10*365*86400)}
		places, args = append(places, p), append(args, []any{p.event, p.latitude, p.longitude, p.last})
	}
	Crossing{Version: v, Stack: Stack{Broker: "none", Backend: "none"}}.To(PythonToGo).Cell(t, "solar", func(t *testing.T) {
		var theirs []struct {
			Error string
			Next  float64
		}
		answer := driver.Do(t, Command{Op: "solars", Args: args})
		if err := json.Unmarshal(answer.Value, &theirs); err != nil || len(theirs) != len(places) {
			t.Fatalf("%s %s: %v", answer.Kind, answer.Error, err)
		}
		compared, farthest := 0, time.Duration(0)
		for i, p := range places {
			if theirs[i].Error != "" { // no such event on that day
				continue
			}
			s, err := scheduler.NewSolar(p.event, p.latitude, p.longitude)
			if err != nil {
				t.Fatal(err)
			}
			compared++
			next := s.Next(time.Unix(p.last, 0))
			apart := time.Duration((float64(next.Unix()) - theirs[i].Next) * float64(time.Second)).Abs()
			if farthest = max(farthest, apart); apart > time.Minute {
				t.Errorf("%v after %d: Celery says %.0f, Gelery %d", s, p.last, theirs[i].Next, next.Unix())
			}
		}
		t.Logf("%d compared, up to %v apart", compared, farthest)
		if compared < 700 {
			t.Errorf("only %d are compared", compared)
		}
	})
}
