package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// CronLine runs by a line of cron with cron's meaning, by robfig/cron.
type CronLine struct {
	line   string
	zone   *time.Location
	parsed cron.Schedule
}

// Line is the line, and the zone where its clock stands.
func (c *CronLine) Line() (string, *time.Location) { return c.line, c.zone }

// Next is the first run after t.
func (c *CronLine) Next(t time.Time) time.Time { return c.parsed.Next(t) }

func (c *CronLine) String() string { return "<cron: " + c.line + ">" }

var lineParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)

// ParseCron reads a line of cron with cron's meaning, by robfig/cron: "30 4 1 * mon" is the first of each month and each Monday.
// "@daily" is a line too, and "@every 90s", which is an [Interval]. A nil zone is UTC; a line that names its own (TZ=) is refused, and one that never comes.
func ParseCron(line string, zone *time.Location) (schedule Schedule, err error) {
	if strings.Contains(line, "TZ=") {
		return nil, errors.New("cron line: it names a time zone; give the zone beside the line")
	}
	defer func() {
		if r := recover(); r != nil { // the parser is not ours
			schedule, err = nil, fmt.Errorf("cron line %.100q cannot be read: %v", line, r)
		}
	}()
	parsed, err := lineParser.Parse(strings.TrimSpace(line))
	if err != nil {
		return nil, fmt.Errorf("cron line %.100q: %w", line, err)
	}
	if every, ok := parsed.(cron.ConstantDelaySchedule); ok {
		return Every(every.Delay)
	}
	if zone == nil {
		zone = time.UTC
	}
	if s, ok := parsed.(*cron.SpecSchedule); ok {
		s.Location = zone
	}
	if parsed.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("cron line %.100q: there is no such date", line)
	}
	return &CronLine{strings.TrimSpace(line), zone, parsed}, nil
}
