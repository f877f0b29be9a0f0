package redbeat

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gelery/gelery/protocol/value"
)

// typeKey marks a dict that stands for an object, as RedBeat writes it: not kombu's, which has a __value__ beside it.
const typeKey = "__type__"

// dateDict is a time as RedBeat writes it. What is below a microsecond is dropped.
func dateDict(t time.Time) map[string]any {
	t = t.UTC()
	return map[string]any{
		typeKey: "datetime", "year": int64(t.Year()), "month": int64(t.Month()), "day": int64(t.Day()), "hour": int64(t.Hour()),
		"minute": int64(t.Minute()), "second": int64(t.Second()), "microsecond": int64(t.Nanosecond() / 1000), "timezone": "UTC",
	}
}

// readDate reads a time as RedBeat writes it: its timezone is a name, or a number of seconds east of UTC; without one it is UTC.
func readDate(v any) (time.Time, error) {
	dict, ok := v.(map[string]any)
	if !ok || dict[typeKey] != "datetime" {
		return time.Time{}, errors.New("it is not a datetime of RedBeat's")
	}
	parts := [7]int{}
	for i, name := range []string{"year", "month", "day", "hour", "minute", "second", "microsecond"} {
		n, ok := dict[name].(int64)
		if !ok && dict[name] != nil || n < 0 || n > 999_999 {
			return time.Time{}, fmt.Errorf("the %s of a datetime is not a number that it can be", name)
		}
		parts[i] = int(n)
	}
	zone, err := readZone(dict["timezone"])
	if err != nil {
		return time.Time{}, err
	}
	t := time.Date(parts[0], time.Month(parts[1]), parts[2], parts[3], parts[4], parts[5], parts[6]*1000, zone)
	if t.Year() != parts[0] || t.Month() != time.Month(parts[1]) || t.Day() != parts[2] {
		return time.Time{}, errors.New("a datetime is no date of the calendar")
	}
	if err := value.CheckTime(t); err != nil {
		return time.Time{}, err
	}
	return t, nil
}

func readZone(v any) (*time.Location, error) {
	var seconds float64
	switch v := v.(type) {
	case nil:
		return time.UTC, nil
	case string:
		zone, err := time.LoadLocation(v)
		if err != nil || v == "Local" {
			return nil, fmt.Errorf("the timezone %.60q of a datetime is not known", v)
		}
		return zone, nil
	case int64:
		seconds = float64(v)
	case float64:
		seconds = v
	default:
		return nil, errors.New("the timezone of a datetime is neither a name nor a number of seconds")
	}
	if !(math.Abs(seconds) < 24*60*60) {
		return nil, errors.New("the timezone of a datetime is a day or more from UTC")
	}
	return time.FixedZone("", int(seconds)), nil
}

// pythonic is a canonical value as RedBeat reads it. ok is false for what it has no form for, and for dicts that it would take for
// something else.
func pythonic(v any) (w any, ok bool) {
	switch v := v.(type) {
	case nil, bool, string, int64, float64:
		return v, true
	case time.Time:
		return dateDict(v), true
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			if list[i], ok = pythonic(item); !ok {
				return nil, false
			}
		}
		return list, true
	case map[string]any:
		if _, typed := v[typeKey]; typed {
			return nil, false
		}
		dict := make(map[string]any, len(v))
		for key, item := range v {
			if dict[key], ok = pythonic(item); !ok {
				return nil, false
			}
		}
		return dict, true
	}
	return nil, false
}

// canonical undoes pythonic: datetimes of RedBeat's become times. v is changed.
func canonical(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			var err error
			if v[i], err = canonical(item); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		if v[typeKey] == "datetime" {
			return readDate(v)
		}
		for key, item := range v {
			var err error
			if v[key], err = canonical(item); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
