package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// entryDocument is one element of what `schedule list -o json` prints.
type entryDocument struct {
	Name          string     `json:"name"`
	Task          string     `json:"task"`
	Schedule      string     `json:"schedule"`
	Timezone      string     `json:"timezone,omitempty"`
	Enabled       bool       `json:"enabled"`
	LastRunAt     *time.Time `json:"last_run_at,omitempty"` // RFC 3339, UTC
	TotalRunCount int64      `json:"total_run_count"`
	Next          *time.Time `json:"next,omitempty"` // RFC 3339, UTC; none if it is paused or over
	Source        string     `json:"source"`
	Fixed         bool       `json:"fixed"`
}

// runDocument is one element of what `schedule next -o json` prints.
type runDocument struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"` // RFC 3339, in the entry's zone
}

func (a *app) entryDocument(r scheduler.Record, now time.Time) entryDocument {
	e := r.Entry
	d := entryDocument{Name: e.Name, Task: firstOf(e.Task.Name(), "-"), Schedule: scheduleText(e.Schedule), Enabled: !e.Paused,
		TotalRunCount: r.State.TotalRunCount, Source: a.source(r), Fixed: r.Fixed}
	if e.Make != nil {
		d.Task = "made at each run"
	}
	if _, zone, err := scheduler.ScheduleDefinition(e.Schedule); err == nil && zone != nil && zone != time.UTC {
		d.Timezone = zone.String()
	}
	if last := r.State.LastRunAt.UTC(); !r.State.LastRunAt.IsZero() {
		d.LastRunAt = &last
	}
	if !e.Paused {
		if upcoming := e.Upcoming(r.State, now, 1); len(upcoming) == 1 {
			next := upcoming[0].UTC()
			d.Next = &next
		}
	}
	return d
}

// zoneOf is the zone of an entry's clock, or the other if it has none.
func zoneOf(e *scheduler.Entry, other *time.Location) *time.Location {
	if _, zone, err := scheduler.ScheduleDefinition(e.Schedule); err == nil && zone != nil {
		return zone
	}
	return other
}

// scheduleText is a schedule in a few words.
func scheduleText(s scheduler.Schedule) string {
	switch s := s.(type) {
	case *scheduler.Interval:
		text := "every " + spanText(s.Every())
		if _, relative := s.Relative(); relative {
			text += ", relative"
		}
		return text
	case *scheduler.Crontab:
		f := s.Fields()
		return strings.Join([]string{f.Minute, f.Hour, f.DayOfMonth, f.MonthOfYear, f.DayOfWeek}, " ")
	case scheduler.Clocked:
		if _, zone, _ := scheduler.ScheduleDefinition(s); zone == nil {
			s.At = s.At.UTC()
		}
		return "once at " + s.At.Format(time.RFC3339)
	}
	definition, _, err := scheduler.ScheduleDefinition(s)
	m, ok := definition.(map[string]any)
	switch {
	case err != nil || !ok:
		return fmt.Sprint(s)
	case m["cron"] != nil:
		return fmt.Sprint("cron ", m["cron"])
	case m["solar"] != nil:
		return fmt.Sprintf("%v at %v, %v", m["solar"], m["latitude"], m["longitude"])
	}
	return fmt.Sprint(s)
}

// spanText is a duration without its zeros: 1h rather than 1h0m0s.
func spanText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// away is how far a time is away, in words of its two largest units: "in 4 minutes", "2 days 3 hours ago", "now".
func away(at, now time.Time) string {
	d := at.Sub(now)
	past := d < 0
	if d = d.Abs(); d < time.Second {
		return "now"
	}
	d = d.Round(time.Second)
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}}
	var words []string
	for i, u := range units {
		if d < u.size {
			continue
		}
		words = append(words, plural(int64(d/u.size), u.name))
		if rest := d % u.size; i+1 < len(units) && u.size > time.Minute {
			if n := rest / units[i+1].size; n > 0 {
				words = append(words, plural(int64(n), units[i+1].name))
			}
		}
		break
	}
	text := strings.Join(words, " ")
	if past {
		return text + " ago"
	}
	return "in " + text
}

func printEntries(w io.Writer, o output, documents []entryDocument, now time.Time) error {
	if done, err := list(w, o, 0, documents); done {
		return err
	}
	if o == outputName {
		for _, d := range documents {
			if _, err := fmt.Fprintln(w, printable(d.Name)); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(documents))
	for i, d := range documents {
		next, last := "-", "-"
		switch {
		case !d.Enabled:
			next = "paused"
		case d.Next != nil:
			next = away(*d.Next, now)
		}
		if d.LastRunAt != nil && d.TotalRunCount > 0 {
			last = away(*d.LastRunAt, now)
		}
		schedule := d.Schedule
		if d.Timezone != "" {
			schedule += " " + d.Timezone
		}
		rows[i] = []string{printable(d.Name), printable(d.Task), printable(schedule), next, last, strconv.FormatInt(d.TotalRunCount, 10), printable(d.Source)}
	}
	return o.table(w, []string{"NAME", "TASK", "SCHEDULE", "NEXT", "LAST", "RUNS", "SOURCE"}, rows)
}

func printRuns(w io.Writer, o output, runs []runDocument, now time.Time) error {
	if done, err := list(w, o, 0, runs); done {
		return err
	}
	rows := make([][]string, len(runs))
	for i, r := range runs {
		rows[i] = []string{away(r.At, now), r.At.Format("Mon 2006-01-02 15:04:05 MST"), printable(r.Name)}
	}
	return o.table(w, []string{"WHEN", "AT", "NAME"}, rows)
}

func writeLines[T any](w io.Writer, documents []T) error {
	for _, d := range documents {
		if err := writeJSON(w, d); err != nil {
			return err
		}
	}
	return nil
}
