package scheduler

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// scheduleKinds are the keys that tell which schedule a map is.
var scheduleKinds = []string{"every", "crontab", "cron", "solar", "at"}

// ParseSchedule reads a schedule as definitions write it:
//
//	30, "1m30s"                                     an interval: seconds or a duration
//	"*/15 8-18 * * mon-fri"                         a crontab with Celery's meaning, in the order of a line of cron
//	"@daily"                                        a line of cron with cron's meaning
//	{every: 3600, relative: true}                   an interval that ends on whole hours
//	{crontab: {minute: 0, hour: "*/3"}}             a crontab by Celery's names; also {crontab: "0 */3 * * *"}
//	{cron: "0 0 13 * fri"}                          a line of cron with cron's meaning
//	{solar: sunset, latitude: 52.5, longitude: 13.4}
//	{at: 2026-01-31T12:00:00Z}                      once
//
// Each map may have a timezone. A nil zone is UTC.
func ParseSchedule(v any, zone *time.Location) (Schedule, error) {
	switch v := v.(type) {
	case nil:
		return nil, errors.New("there is none")
	case Schedule:
		return v, nil
	case int64, float64, time.Duration:
		span, err := parseSpan(v)
		if err != nil {
			return nil, err
		}
		return Every(span)
	case string:
		if strings.HasPrefix(v, "@") {
			return ParseCron(v, zone)
		}
		if len(strings.Fields(v)) > 1 {
			return ParseCrontab(v, zone)
		}
		span, err := parseSpan(v)
		if err != nil {
			return nil, fmt.Errorf("%.40q: it is an interval such as 30 or 1m30s, or a crontab of five fields", v)
		}
		return Every(span)
	case map[string]any:
		return parseScheduleMap(v, zone)
	}
	return nil, errors.New("it is a number, a text or a map")
}

func parseScheduleMap(m map[string]any, zone *time.Location) (Schedule, error) {
	if v := m["timezone"]; v != nil {
		var err error
		if zone, err = zoneNamed(v); err != nil {
			return nil, fmt.Errorf("timezone: %w", err)
		}
	}
	kind := ""
	for _, k := range scheduleKinds {
		if _, ok := m[k]; ok {
			if kind != "" {
				return nil, fmt.Errorf("it is one of %s and %s, not both", kind, k)
			}
			kind = k
		}
	}
	if kind == "" {
		return nil, fmt.Errorf("a schedule is a map with one of %s", strings.Join(scheduleKinds, ", "))
	}
	allowed := map[string][]string{"every": {"relative"}, "solar": {"latitude", "longitude"}}[kind]
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if name != kind && name != "timezone" && !slices.Contains(allowed, name) {
			return nil, fmt.Errorf("%s: there is no such field beside %s", name, kind)
		}
	}
	switch kind {
	case "every":
		span, err := parseSpan(m["every"])
		if err != nil {
			return nil, fmt.Errorf("every: %w", err)
		}
		if m["relative"] == true {
			return EveryRelative(span, zone)
		}
		return Every(span)
	case "cron":
		line, _ := m["cron"].(string)
		return ParseCron(line, zone)
	case "at":
		at, err := parseMoment(m["at"], zone)
		if err != nil {
			return nil, fmt.Errorf("at: %w", err)
		}
		if zone != nil {
			at = at.In(zone)
		}
		return Clocked{At: at}, nil
	case "solar":
		var latitude, longitude float64
		if err := value.Assign(&latitude, m["latitude"]); err != nil {
			return nil, fmt.Errorf("latitude: %w", err)
		}
		if err := value.Assign(&longitude, m["longitude"]); err != nil {
			return nil, fmt.Errorf("longitude: %w", err)
		}
		event, _ := m["solar"].(string)
		return NewSolar(event, latitude, longitude)
	}
	if line, ok := m["crontab"].(string); ok {
		return ParseCrontab(line, zone)
	}
	fields, ok := m["crontab"].(map[string]any)
	if !ok {
		return nil, errors.New("crontab: it is a text of five fields, or a map of minute, hour, day_of_week, day_of_month, month_of_year")
	}
	return CrontabOf(fields, zone)
}

// CrontabOf makes a crontab of Celery's arguments under their names, each a number, a text or a list of numbers.
func CrontabOf(fields map[string]any, zone *time.Location) (*Crontab, error) {
	f := CrontabFields{Zone: zone}
	into := map[string]*string{
		"minute": &f.Minute, "hour": &f.Hour, "day_of_week": &f.DayOfWeek, "day_of_month": &f.DayOfMonth, "month_of_year": &f.MonthOfYear,
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		text, ok := into[name]
		if !ok {
			return nil, fmt.Errorf("%.60s: a crontab has no such field", name)
		}
		parts, ok := fields[name].([]any)
		if !ok {
			parts = []any{fields[name]}
		}
		var all []string
		for _, part := range parts {
			switch p := part.(type) {
			case int64:
				all = append(all, strconv.FormatInt(p, 10))
			case string:
				all = append(all, p)
			default:
				return nil, &FieldError{name, fmt.Sprint(part), errors.New("it is a number, a text or a list of them")}
			}
		}
		if *text = strings.Join(all, ","); *text == "" {
			return nil, &FieldError{name, "", errors.New("it is empty")}
		}
	}
	return NewCrontab(f)
}

// ScheduleDefinition is a schedule as [ParseSchedule] reads it, and the zone where its clock stands; nil if it has none.
func ScheduleDefinition(s Schedule) (any, *time.Location, error) {
	switch s := s.(type) {
	case *Interval:
		if !s.relative {
			return map[string]any{"every": s.every.Seconds()}, nil, nil
		}
		return map[string]any{"every": s.every.Seconds(), "relative": true}, s.zone, nil
	case *Crontab:
		f := s.fields
		return map[string]any{"crontab": map[string]any{
			"minute": f.Minute, "hour": f.Hour, "day_of_week": f.DayOfWeek, "day_of_month": f.DayOfMonth, "month_of_year": f.MonthOfYear,
		}}, f.Zone, nil
	case *CronLine:
		return map[string]any{"cron": s.line}, s.zone, nil
	case *Solar:
		return map[string]any{"solar": s.event.name, "latitude": s.latitude, "longitude": s.longitude}, nil, nil
	case Clocked:
		if zone := s.zone(); zone != nil {
			return map[string]any{"at": value.FormatISO(s.At)}, zone, nil
		}
		return map[string]any{"at": protocol.FormatTime(s.At)}, nil, nil
	}
	return nil, nil, fmt.Errorf("a %T cannot be written down", s)
}
