package scheduler

import (
	"context"
	"flag"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/transport"
)

var (
	yearZones = flag.Int("year-zones", 6, "zones whose year a beat lives through: at most 100")
	yearDense = flag.Bool("year-dense", false, "with entries of every quarter of an hour")
)

// zonesOfTheWorld are a hundred zones, those that change their clocks in odd ways first.
var zonesOfTheWorld = []string{
	"America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham",
	"Europe/London", "Europe/Berlin", "Europe/Dublin", "America/Santiago", "America/Havana", "Asia/Beirut", "Africa/Cairo", "Asia/Gaza",
	"America/Asuncion", "America/Nuuk", "Pacific/Easter", "Pacific/Norfolk", "Asia/Tehran", "Europe/Lisbon", "Atlantic/Azores", "America/Miquelon",
	"Europe/Chisinau", "Asia/Jerusalem", "America/Scoresbysund", "Antarctica/Troll", "UTC", "Asia/Tokyo", "Asia/Kolkata", "Asia/Shanghai",
	"America/Los_Angeles", "America/Denver", "America/Chicago", "America/Anchorage", "America/Adak", "Pacific/Honolulu", "America/Phoenix",
	"America/Halifax", "America/Toronto", "America/Vancouver", "America/Winnipeg", "America/Edmonton", "America/Regina", "America/Mexico_City",
	"America/Tijuana", "America/Bogota", "America/Lima", "America/Caracas", "America/La_Paz", "America/Sao_Paulo", "America/Argentina/Buenos_Aires",
	"America/Montevideo", "America/Guatemala", "America/Panama", "America/Port-au-Prince", "America/Nassau", "Atlantic/Bermuda", "Atlantic/Reykjavik",
	"Europe/Paris", "Europe/Madrid", "Europe/Rome", "Europe/Vienna", "Europe/Zurich", "Europe/Amsterdam", "Europe/Brussels", "Europe/Stockholm",
	"Europe/Oslo", "Europe/Copenhagen", "Europe/Helsinki", "Europe/Warsaw", "Europe/Prague", "Europe/Budapest", "Europe/Athens", "Europe/Sofia",
	"Europe/Bucharest", "Europe/Riga", "Europe/Moscow", "Europe/Istanbul", "Europe/Minsk", "Africa/Johannesburg", "Africa/Lagos", "Africa/Nairobi",
	"Africa/Algiers", "Africa/El_Aaiun", "Asia/Dubai", "Asia/Karachi", "Asia/Dhaka", "Asia/Yangon", "Asia/Bangkok", "Asia/Singapore", "Asia/Hong_Kong",
	"Asia/Seoul", "Asia/Kabul", "Asia/Nicosia", "Australia/Sydney", "Australia/Adelaide", "Australia/Darwin", "Australia/Perth", "Pacific/Auckland",
	"Pacific/Apia",
}

// counting is a broker that counts runs by entry, which it finds by the queue.
type counting struct {
	transport.Transport
	mu   sync.Mutex
	runs map[string]int
}

func (c *counting) Declare(context.Context, transport.Queue) error { return nil }

func (c *counting) Publish(_ context.Context, batch []transport.Publication) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range batch {
		c.runs[p.RoutingKey]++
	}
	return nil
}

// A beat lives through a year: every entry runs as often as the clocks of its zone say. What is expected is counted from
// the zone's minutes and days, not by the scheduler.
func TestYear(t *testing.T) {
	t.Parallel()
	zones := zonesOfTheWorld[:min(*yearZones, len(zonesOfTheWorld))]
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		end := start.AddDate(1, 0, 0)
		var all []*Entry
		want := map[string]int{}
		for _, name := range zones {
			zone, err := time.LoadLocation(name)
			if err != nil {
				t.Fatal(err)
			}
			for kind, text := range map[string]string{
				"night": "30 2 * * *", "six": "15 */6 * * *", "monday": "0 9 * * mon", "monthly": "45 0 1 * *", "quarter": "*/15 * * * *",
			} {
				if kind == "quarter" && !*yearDense {
					continue
				}
				id := kind + " " + name
				e := entry(t, id, fmt.Sprintf(`{task: a, schedule: %q, timezone: %s, options: {queue: %q}}`, text, name, id))
				all = append(all, e)
				want[id] = expected(kind, zone, start, end)
			}
		}
		c := &counting{runs: map[string]int{}}
		before := cpuTime(t)
		b := beating(t, end.Sub(start)+time.Second, local(t, LocalConfig{Entries: all}), c, nil)
		took := cpuTime(t) - before
		total := 0
		for id, n := range want {
			total += n
			if got := c.runs[id]; got != n {
				t.Errorf("%s: %d runs in the year, want %d", id, got, n)
			}
		}
		if s := b.Stats(); s.Sent != int64(total) || s.Failed > 0 || total < 300*len(zones) {
			t.Errorf("%d of %d runs: %+v", s.Sent, total, s)
		}
		t.Logf("a year of %d zones, %d entries, %d runs: %v of CPU time", len(zones), len(all), total, took.Round(time.Millisecond))
	})
}

// cpuTime is what this process has used: the bubble has a clock of its own.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// expected counts the runs of a kind of entry after one time and until another, by looking at every minute.
func expected(kind string, zone *time.Location, after, until time.Time) (n int) {
	daily := map[string]int{"night": 2*60 + 30, "monday": 9 * 60, "monthly": 45}
	minutes, fixed := daily[kind]
	seen := map[[3]int]bool{}
	// The day before may still go on in the zone, and its moment be past.
	for at := after.Add(-48 * time.Hour); !at.After(until); at = at.Add(time.Minute) {
		local := at.In(zone)
		y, m, d := local.Date()
		clock := local.Hour()*60 + local.Minute()
		switch {
		case fixed:
			// The first instant of the day at which the clock shows the moment or a later one.
			day := [3]int{y, int(m), d}
			if clock < minutes || seen[day] {
				continue
			}
			seen[day] = true
			if kind == "monday" && local.Weekday() != time.Monday || kind == "monthly" && d != 1 {
				continue
			}
		case kind == "six" && (clock%60 != 15 || clock/60%6 != 0), kind == "quarter" && clock%15 != 0:
			continue
		}
		if at.After(after) {
			n++
		}
	}
	return n
}
