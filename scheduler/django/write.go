package django

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/scheduler"
)

// writtenRow is an entry as a row of PeriodicTask, and its schedule as one of another table.
type writtenRow struct {
	definition
	kind    kind
	columns []written
}

type written struct {
	name  string
	value any // an arg or a moment
}

// longestText is what Django's columns of names take, in characters.
const longestText = 200

// write makes rows of an entry; what they have no place for is an *EntryError.
func (s *Store) write(e *scheduler.Entry) (*writtenRow, error) {
	if err := e.Check(); err != nil {
		return nil, err
	}
	wrong := func(field, text string) (*writtenRow, error) {
		return nil, &scheduler.EntryError{Entry: e.Name, Field: field, Err: errors.New(text)}
	}
	const noPlace = "the tables of django-celery-beat have no place for it"
	w := &writtenRow{definition: definition{name: e.Name, enabled: !e.Paused, oneOff: e.OneOff, expires: micro(e.End), start: micro(e.Start)}}
	err := s.writeSchedule(w, e.Schedule)
	switch {
	case e.Make != nil:
		return wrong("task", "what is made at each run cannot be written down")
	case err != nil:
		return nil, &scheduler.EntryError{Entry: e.Name, Field: "schedule", Err: err}
	case e.Missed != scheduler.MissedLast:
		return wrong("missed", noPlace)
	case e.Jitter != 0:
		return wrong("jitter", noPlace)
	case e.Deadline != 0 && (w.kind != crontab || e.Deadline != s.config.Deadline):
		return wrong("deadline", noPlace+"; beat_cron_starting_deadline is for all crontabs")
	case e.KeepExpired && !s.config.KeepExpired:
		return wrong("keep_expired", noPlace)
	}
	if field, err := w.writeTask(e); err != nil {
		return nil, &scheduler.EntryError{Entry: e.Name, Field: field, Err: err}
	}
	return w, nil
}

// micro is a time as a column keeps it.
func micro(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// writeTask writes what is sent, or says which field is wrong.
func (w *writtenRow) writeTask(e *scheduler.Entry) (field string, err error) {
	wire, err := e.Task.Wire()
	if err != nil {
		return "task", err
	}
	if wire.SubtaskType != "" || len(wire.Extra) > 0 {
		return "task", errors.New("the tables of django-celery-beat have no place for a workflow")
	}
	if wire.Immutable {
		return "task", errors.New("the tables of django-celery-beat have no place for immutable")
	}
	if err := fits(wire.Task); err != nil {
		return "task", err
	}
	w.task = wire.Task
	args, kwargs := wire.Args, wire.Kwargs
	if args == nil {
		args = []any{}
	}
	if kwargs == nil {
		kwargs = map[string]any{}
	}
	headers := map[string]any{}
	for name, v := range wire.Options {
		if v == nil {
			continue
		}
		if err := w.writeOption(name, v, headers); err != nil {
			return "options", fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, x := range []struct {
		field string
		v     any
		into  *string
	}{{"args", args, &w.args}, {"kwargs", kwargs, &w.kwargs}, {"options", headers, &w.headers}} {
		text, err := serialization.AppendJSON(nil, x.v)
		if err != nil {
			return x.field, err
		}
		*x.into = string(text)
	}
	return "", nil
}

func fits(text string) error {
	if utf8.RuneCountInString(text) > longestText || strings.ContainsRune(text, 0) {
		return fmt.Errorf("%.40q: it is a text of at most %d characters", text, longestText)
	}
	return nil
}

func (w *writtenRow) writeOption(name string, v any, headers map[string]any) error {
	switch name {
	case "queue", "exchange", "routing_key":
		text, ok := v.(string)
		if !ok {
			return errors.New("it is a text")
		}
		*map[string]*sql.NullString{"queue": &w.queue, "exchange": &w.exchange, "routing_key": &w.routingKey}[name] = sql.NullString{String: text, Valid: text != ""}
		return fits(text)
	case "priority":
		n, ok := v.(int64)
		if !ok || n < 0 || n > 255 {
			return errors.New("it is a whole number from 0 to 255")
		}
		w.priority = sql.NullInt64{Int64: n, Valid: true}
		return nil
	case "headers":
		given, ok := v.(map[string]any)
		if !ok {
			return errors.New("it is an object")
		}
		for name, v := range given {
			headers[name] = v
		}
		return nil
	case "expires":
		return w.writeExpires(v)
	}
	return errors.New("the tables of django-celery-beat have no place for it; they have one for queue, exchange, routing_key, priority, expires and headers")
}

// writeExpires writes after how many seconds a run expires. A row that has an end has the same for its runs, and no other.
func (w *writtenRow) writeExpires(v any) error {
	var seconds float64
	switch v := v.(type) {
	case int64:
		seconds = float64(v)
	case float64:
		seconds = v
	case string:
		if at, err := protocol.ParseTime(v); err == nil && at.Equal(w.expires) {
			return nil
		}
		return errors.New("it is a number of seconds; a time is the entry's end")
	default:
		return errors.New("it is a number of seconds")
	}
	if !w.expires.IsZero() {
		return errors.New("a row has either an end or a time after which its runs expire")
	}
	if seconds = math.Ceil(seconds); !(seconds >= 1 && seconds <= math.MaxInt32) {
		return errors.New("it is a number of seconds from 1 to 2147483647")
	}
	w.expireSeconds = sql.NullInt64{Int64: int64(seconds), Valid: true}
	return nil
}

// writeSchedule writes a schedule as a row of its table.
func (s *Store) writeSchedule(w *writtenRow, schedule scheduler.Schedule) error {
	switch schedule := schedule.(type) {
	case *scheduler.Interval:
		w.kind = interval
		return w.writeInterval(schedule)
	case *scheduler.Crontab:
		w.kind = crontab
		return s.writeCrontab(w, schedule)
	case *scheduler.Solar:
		w.kind = solar
		return w.writeSolar(schedule)
	case scheduler.Clocked:
		w.kind, w.oneOff = clocked, true
		w.columns = []written{{"clocked_time", s.dialect.time(schedule.At.Truncate(time.Microsecond))}}
		return nil
	}
	return fmt.Errorf("%v: the tables of django-celery-beat hold intervals, crontabs, solar events and moments", schedule)
}

func (w *writtenRow) writeInterval(i *scheduler.Interval) error {
	if _, relative := i.Relative(); relative {
		return errors.New("the tables of django-celery-beat have no place for relative")
	}
	for _, p := range periods {
		if n := i.Every() / p.unit; i.Every()%p.unit == 0 {
			if n > math.MaxInt32 {
				return fmt.Errorf("%v are too many %s for the tables of django-celery-beat: take whole seconds", int64(n), p.name)
			}
			w.columns = []written{{"every", arg{int64(n)}}, {"period", arg{p.name}}}
			return nil
		}
	}
	return errors.New("it is a whole number of microseconds")
}

func (s *Store) writeCrontab(w *writtenRow, c *scheduler.Crontab) error {
	given, numbers := c.Fields(), c.Numbers()
	zone := given.Zone.String()
	if _, err := time.LoadLocation(zone); err != nil || zone == "Local" {
		return fmt.Errorf("timezone %.60q: the tables of django-celery-beat hold names of time zones, such as Europe/Berlin", zone)
	}
	if s.config.Unaware && zone != s.config.Zone.String() {
		return fmt.Errorf("timezone %.60q: all crontabs go by %s, because DJANGO_CELERY_BEAT_TZ_AWARE is off", zone, s.config.Zone)
	}
	for _, f := range []struct{ name, given, numbers, letters string }{
		{"minute", given.Minute, numbers.Minute, ""}, {"hour", given.Hour, numbers.Hour, ""}, {"day_of_month", given.DayOfMonth, numbers.DayOfMonth, ""},
		{"month_of_year", given.MonthOfYear, numbers.MonthOfYear, ""}, {"day_of_week", given.DayOfWeek, numbers.DayOfWeek, "7"},
	} {
		text := f.given // as it was given, unless not every Celery reads that
		if strings.Trim(text, "0123456789*,-/") != "" || f.name == "day_of_week" && strings.ContainsAny(text, f.letters) {
			text = f.numbers
		}
		if len(text) > crontabLengths[f.name] {
			text = f.numbers
		}
		w.columns = append(w.columns, written{f.name, arg{text}})
	}
	w.columns = append(w.columns, written{"timezone", arg{zone}})
	return nil
}

// crontabLengths are those of the columns, in characters. Numbers fit them all.
var crontabLengths = map[string]int{"minute": 240, "hour": 96, "day_of_month": 124, "month_of_year": 64, "day_of_week": 64}

func (w *writtenRow) writeSolar(schedule *scheduler.Solar) error {
	definition, _, err := scheduler.ScheduleDefinition(schedule)
	if err != nil {
		return err
	}
	d, _ := definition.(map[string]any)
	latitude, isLatitude := d["latitude"].(float64)
	longitude, isLongitude := d["longitude"].(float64)
	if !isLatitude || !isLongitude {
		return errors.New("it has no place")
	}
	degrees := func(f float64) any { return arg{strconv.FormatFloat(f, 'f', 6, 64)} }
	w.columns = []written{{"event", arg{d["solar"]}}, {"latitude", degrees(latitude)}, {"longitude", degrees(longitude)}}
	return nil
}
