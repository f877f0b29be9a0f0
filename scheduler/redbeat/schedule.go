package redbeat

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/scheduler"
)

// placeholderEvery is the interval, in seconds, of what RedBeat is shown for an entry that it cannot run: a hundred years, which it
// will not live to see. It is disabled besides, and its score below zero.
const placeholderEvery = 100 * 365 * 86400.0

// readSchedule reads a schedule of RedBeat's.
func (c codec) readSchedule(v any) (scheduler.Schedule, error) {
	switch v := v.(type) {
	case int64, float64:
		return scheduler.ParseSchedule(v, c.zone)
	case map[string]any:
		kind, _ := v[typeKey].(string)
		switch kind {
		case "interval":
			return c.readInterval(v)
		case "crontab":
			fields := make(map[string]any, len(v))
			for name, field := range v {
				if name != typeKey && field != nil {
					fields[name] = field
				}
			}
			return scheduler.CrontabOf(fields, c.zone)
		case "rrule":
			return readRecurrence(v)
		case "":
			return nil, errors.New("it has no __type__")
		}
		return nil, fmt.Errorf("__type__ %.60q is none that is known here; the entry is left alone", kind)
	case nil:
		return nil, errors.New("there is none")
	}
	return nil, errors.New("it is not a schedule of RedBeat's")
}

func (c codec) readInterval(v map[string]any) (scheduler.Schedule, error) {
	var seconds float64
	relative := false
	if err := value.Assign(&seconds, v["every"]); err != nil {
		return nil, fmt.Errorf("every: %w", err)
	}
	if r := v["relative"]; r != nil {
		if err := value.Assign(&relative, r); err != nil {
			return nil, fmt.Errorf("relative: %w", err)
		}
	}
	if !(seconds > 0 && seconds <= placeholderEvery) {
		return nil, fmt.Errorf("every: %v seconds is not allowed: it is more than 0 and at most a hundred years", seconds)
	}
	every := time.Duration(seconds*1e6+0.5) * time.Microsecond
	if relative && every >= time.Second {
		return scheduler.EveryRelative(every, c.zone)
	}
	return scheduler.Every(every)
}

// writeSchedule is a schedule as RedBeat reads it. ok is false if it cannot, or would run it at other times.
func (c codec) writeSchedule(s scheduler.Schedule) (dict map[string]any, ok bool) {
	switch s := s.(type) {
	case *scheduler.Interval:
		zone, relative := s.Relative()
		return map[string]any{typeKey: "interval", "every": s.Every().Seconds(), "relative": relative}, !relative || sameZone(zone, c.zone)
	case *scheduler.Crontab:
		f, numbers := s.Fields(), s.Numbers()
		return map[string]any{
			typeKey: "crontab", "minute": cronText(f.Minute, numbers.Minute), "hour": cronText(f.Hour, numbers.Hour),
			"day_of_week":  weekdayText(f.DayOfWeek, numbers.DayOfWeek),
			"day_of_month": cronText(f.DayOfMonth, numbers.DayOfMonth), "month_of_year": cronText(f.MonthOfYear, numbers.MonthOfYear),
		}, sameZone(f.Zone, c.zone)
	case *Recurrence:
		return s.definition, true
	}
	return nil, false
}

func sameZone(a, b *time.Location) bool { return a == b || a.String() == b.String() }

// What every Celery reads of a field of a crontab; of the rest it is told the numbers.
var (
	plainCron    = regexp.MustCompile(`^(\*|\*/\d+|\d+|\d+-\d+|\d+-\d+/\d+)(,(\*|\*/\d+|\d+|\d+-\d+|\d+-\d+/\d+))*$`)
	plainWeekday = regexp.MustCompile(`^(\*|\*/[0-6]|[0-6]|[0-6]-[0-6]|(sun|mon|tue|wed|thu|fri|sat)(-(sun|mon|tue|wed|thu|fri|sat))?)$`)
)

func cronText(text, numbers string) string {
	if plainCron.MatchString(text) {
		return text
	}
	return numbers
}

func weekdayText(text, numbers string) string {
	for part := range strings.SplitSeq(text, ",") {
		if !plainWeekday.MatchString(part) {
			return numbers
		}
	}
	return text
}
