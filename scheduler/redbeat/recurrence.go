package redbeat

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/teambition/rrule-go"
)

// Recurrence is RedBeat's rrule: a rule of iCalendar, with the meaning that Python's dateutil gives it.
type Recurrence struct {
	definition map[string]any // as RedBeat wrote it
	option     rrule.ROption
}

var frequencies = []rrule.Frequency{rrule.YEARLY, rrule.MONTHLY, rrule.WEEKLY, rrule.DAILY, rrule.HOURLY, rrule.MINUTELY, rrule.SECONDLY}

// mostRecurrences is how many moments a rule with a count may have: they are counted from its beginning each time.
const mostRecurrences = 100_000

// readRecurrence reads RedBeat's form of a rule.
func readRecurrence(d map[string]any) (*Recurrence, error) {
	r := &Recurrence{definition: d}
	o := &r.option
	n := -1
	switch freq := d["freq"].(type) {
	case int64:
		n = int(min(max(freq, -1), 7))
	case string:
		for i, f := range frequencies {
			if f.String() == strings.ToUpper(freq) {
				n = i
			}
		}
	}
	if n < 0 || n >= len(frequencies) {
		return nil, errors.New("freq is not one from 0 (yearly) to 6 (secondly)")
	}
	o.Freq = frequencies[n]
	var errs []error
	number := func(name string, least, most int64, otherwise int) int {
		switch v := d[name].(type) {
		case nil:
			return otherwise
		case int64:
			if v >= least && v <= most {
				return int(v)
			}
		}
		errs = append(errs, fmt.Errorf("%s is not a number from %d to %d", name, least, most))
		return otherwise
	}
	o.Interval = number("interval", 1, 1e6, 1)
	o.Count = number("count", 1, mostRecurrences, 0)
	for name, into := range map[string]*[]int{
		"bysetpos": &o.Bysetpos, "bymonth": &o.Bymonth, "bymonthday": &o.Bymonthday, "byyearday": &o.Byyearday, "byeaster": &o.Byeaster,
		"byweekno": &o.Byweekno, "byhour": &o.Byhour, "byminute": &o.Byminute, "bysecond": &o.Bysecond,
	} {
		var err error
		if *into, err = numbers(d[name]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	weekdays, err := readWeekdays(d["byweekday"])
	if err != nil {
		errs = append(errs, fmt.Errorf("byweekday: %w", err))
	}
	o.Byweekday = weekdays
	if first, err := readWeekdays(d["wkst"]); err != nil || len(first) > 1 {
		errs = append(errs, errors.New("wkst is not a day of the week"))
	} else if len(first) == 1 {
		o.Wkst = first[0]
	}
	for name, into := range map[string]*time.Time{"dtstart": &o.Dtstart, "until": &o.Until} {
		if *into, err = readStamp(d[name], d[name+"_tz"]); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if o.Dtstart.IsZero() {
		errs = append(errs, errors.New("dtstart is missing: the rule would begin anew each time it is looked at"))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, r.check()
}

// slowest is how long finding the next moment may take. The library looks at one moment or day after the other, of a rule that no
// day matches until the year 9999.
const slowest = 50 * time.Millisecond

// check asks the library whether the rule can be, and whether it is found out soon enough when it is due.
func (r *Recurrence) check() error {
	o := r.option
	if _, err := rrule.NewRRule(o); err != nil {
		return err
	}
	byTime := len(o.Byhour)+len(o.Byminute)+len(o.Bysecond) > 0
	if o.Freq > rrule.DAILY && (o.Interval > 1 && byTime || len(o.Bysetpos) > 0) {
		return errors.New("a rule by the hour or faster, with bysetpos, or with an interval and hours, minutes or seconds, is not run here")
	}
	begin := time.Now()
	moment := r.Next(begin)
	switch took := time.Since(begin); {
	case took > slowest:
		return fmt.Errorf("finding its next moment takes %v, and may take %v", took.Round(time.Millisecond), slowest)
	case moment.IsZero() && o.Count == 0 && o.Until.IsZero():
		return errors.New("it has no moment")
	}
	return nil
}

// Next is the first moment after t, in the location of t: rrule.after of dateutil.
func (r *Recurrence) Next(t time.Time) time.Time {
	o := r.option
	if o.Count == 0 {
		o.Dtstart = forward(o, t)
	}
	rule, err := rrule.NewRRule(o)
	if err != nil {
		return time.Time{}
	}
	moment := rule.After(t, false)
	if moment.IsZero() {
		return time.Time{}
	}
	return moment.In(t.Location())
}

// forward is the beginning of a rule moved on by whole intervals to shortly before t: the rule has the same moments from there on.
func forward(o rrule.ROption, t time.Time) time.Time {
	var step time.Duration
	switch o.Freq {
	case rrule.WEEKLY:
		step = 7 * 24 * time.Hour
	case rrule.DAILY:
		step = 24 * time.Hour
	case rrule.HOURLY:
		step = time.Hour
	case rrule.MINUTELY:
		step = time.Minute
	case rrule.SECONDLY:
		step = time.Second
	default:
		return o.Dtstart
	}
	seconds := int64(step/time.Second) * int64(o.Interval)
	n := (t.Unix()-o.Dtstart.Unix())/seconds - 2
	if n <= 0 {
		return o.Dtstart
	}
	return time.Unix(o.Dtstart.Unix()+n*seconds, 0).In(o.Dtstart.Location())
}

func (r *Recurrence) String() string { return "<rrule: " + r.option.RRuleString() + ">" }

// numbers reads a number or a list of them.
func numbers(v any) (all []int, err error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	for _, item := range list {
		n, ok := item.(int64)
		if !ok || n < -366 || n > 366 {
			return nil, errors.New("it is a number from -366 to 366, or a list of them")
		}
		all = append(all, int(n))
	}
	return all, nil
}

var weekdays = []rrule.Weekday{rrule.MO, rrule.TU, rrule.WE, rrule.TH, rrule.FR, rrule.SA, rrule.SU}

// readWeekdays reads days of the week, each a number from 0, Monday, or RedBeat's weekday.
func readWeekdays(v any) (all []rrule.Weekday, err error) {
	list, ok := v.([]any)
	if !ok && v != nil {
		list = []any{v}
	}
	for _, item := range list {
		nth := int64(0)
		if dict, ok := item.(map[string]any); ok && dict[typeKey] == "weekday" {
			item = dict["wkday"]
			nth, _ = dict["n"].(int64)
		}
		n, ok := item.(int64)
		if !ok || n < 0 || n > 6 || nth < -53 || nth > 53 {
			return nil, errors.New("it is a day of the week from 0 to 6, or a list of them")
		}
		day := weekdays[n]
		if nth != 0 {
			day = day.Nth(int(nth))
		}
		all = append(all, day)
	}
	return all, nil
}

// readStamp reads Unix seconds and the minutes of their zone.
func readStamp(v, zone any) (time.Time, error) {
	number := func(v any) (float64, bool) {
		switch v := v.(type) {
		case nil:
			return 0, true
		case int64:
			return float64(v), true
		case float64:
			return v, true
		}
		return 0, false
	}
	seconds, ok := number(v)
	minutes, zoned := number(zone)
	if !ok || !zoned || !(math.Abs(minutes) < 24*60) || !(math.Abs(seconds) < 253402300800) {
		return time.Time{}, errors.New("it is not a number of Unix seconds with its zone in minutes")
	}
	if v == nil {
		return time.Time{}, nil
	}
	at := time.Unix(int64(seconds), 0).UTC()
	if minutes != 0 {
		at = at.In(time.FixedZone("", int(minutes*60)))
	}
	return at, nil
}
