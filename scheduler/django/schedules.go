package django

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/gelery/gelery/scheduler"
)

// kind is one of the four kinds of schedules, each of which has a table.
type kind int

const (
	interval kind = iota
	crontab
	solar
	clocked
	noKind
)

// scheduleRow is a row of one of those tables.
type scheduleRow struct {
	key      string // what it says
	schedule scheduler.Schedule
	err      error
}

// schedules are the rows of the tables by their ids.
type schedules [noKind]map[int64]scheduleRow

// periods are the units of an interval.
var periods = []struct {
	name string
	unit time.Duration
}{
	{"days", 24 * time.Hour}, {"hours", time.Hour}, {"minutes", time.Minute}, {"seconds", time.Second}, {"microseconds", time.Microsecond},
}

// readSchedules reads the rows of all four tables; where says which. Of known rows that say what they said the schedules are kept.
func (s *Store) readSchedules(ctx context.Context, r runner, known schedules, where string) (all schedules, err error) {
	for k := range all {
		if all[k], err = s.readKind(ctx, r, kind(k), known[k], where); err != nil {
			return all, err
		}
	}
	return all, nil
}

// readOwn reads the schedule of a task.
func (s *Store) readOwn(ctx context.Context, r runner, row *taskRow) (all schedules, err error) {
	if k := row.kind(); k != noKind {
		all[k], err = s.readKind(ctx, r, k, nil, " WHERE id = ", arg{row.schedule[k].Int64})
	}
	return all, err
}

// scheduleColumns are what is read of the tables.
var scheduleColumns = [noKind]string{
	interval: "id, every, period", crontab: "id, minute, hour, day_of_week, day_of_month, month_of_year, timezone",
	solar: "id, event, latitude, longitude", clocked: "id, clocked_time",
}

func (s *Store) readKind(ctx context.Context, r runner, k kind, known map[int64]scheduleRow, where ...any) (map[int64]scheduleRow, error) {
	all := make(map[int64]scheduleRow, len(known))
	made := map[string]scheduleRow{} // many rows say the same
	err := s.dialect.query(ctx, r, func(scan func(...any) error) error {
		id, key, read, err := s.scanSchedule(k, scan)
		if err != nil {
			return fmt.Errorf("table %s: %w", scheduleTables[k], err)
		}
		row, ok := known[id]
		if !ok || row.key != key {
			if row, ok = made[key]; !ok {
				row = scheduleRow{key: key}
				row.schedule, row.err = read()
				made[key] = row
			}
		}
		all[id] = row
		return nil
	}, slices.Concat([]any{"SELECT ", scheduleColumns[k], " FROM ", scheduleTables[k]}, where)...)
	return all, err
}

var scheduleTables = [noKind]string{intervalTable, crontabTable, solarTable, clockedTable}

// scanSchedule reads a row, and says how to make a schedule of it.
func (s *Store) scanSchedule(k kind, scan func(...any) error) (id int64, key string, read func() (scheduler.Schedule, error), err error) {
	switch k {
	case interval:
		var every int64
		var period string
		err = scan(&id, &every, &period)
		key = fmt.Sprint(every, " ", period)
		read = func() (scheduler.Schedule, error) { return readInterval(every, period) }
	case crontab:
		var f scheduler.CrontabFields
		var zone string
		err = scan(&id, &f.Minute, &f.Hour, &f.DayOfWeek, &f.DayOfMonth, &f.MonthOfYear, &zone)
		key = fmt.Sprintf("%q %q", f, zone)
		read = func() (scheduler.Schedule, error) { return s.readCrontab(f, zone) }
	case solar:
		var event string
		var latitude, longitude float64
		err = scan(&id, &event, &latitude, &longitude)
		key = fmt.Sprint(event, " ", latitude, " ", longitude)
		read = func() (scheduler.Schedule, error) { return scheduler.NewSolar(event, latitude, longitude) }
	default:
		var at column
		err = scan(&id, &at)
		key = at.String() + at.wrong
		read = func() (scheduler.Schedule, error) {
			if at.IsZero() {
				return nil, fmt.Errorf("clocked_time %s is no time", at.wrong)
			}
			return scheduler.Clocked{At: s.dialect.readTime(at)}, nil
		}
	}
	return id, key, read, err
}

func readInterval(every int64, period string) (scheduler.Schedule, error) {
	for _, p := range periods {
		if p.name == period {
			if every > math.MaxInt64/int64(p.unit) {
				every = math.MaxInt64 / int64(p.unit) // which is refused
			}
			return scheduler.Every(time.Duration(every) * p.unit)
		}
	}
	return nil, fmt.Errorf("period %.40q: it is days, hours, minutes, seconds or microseconds", period)
}

func (s *Store) readCrontab(f scheduler.CrontabFields, zone string) (scheduler.Schedule, error) {
	for _, text := range []string{f.Minute, f.Hour, f.DayOfWeek, f.DayOfMonth, f.MonthOfYear} {
		if text == "" {
			return nil, errors.New("a field of the crontab is empty")
		}
	}
	f.Zone = s.config.Zone
	if !s.config.Unaware {
		var err error
		if f.Zone, err = time.LoadLocation(zone); err != nil || zone == "" || zone == "Local" {
			return nil, fmt.Errorf("timezone %.60q: there is no time zone of this name", zone)
		}
	}
	return scheduler.NewCrontab(f)
}
