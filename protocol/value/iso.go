package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// FormatISO writes t as Celery writes dates: 2026-01-02T03:04:05.000678+00:00. The fraction always has six digits,
// because Python before 3.11 reads no other number of them safely, and UTC is +00:00, because "Z" is new there too.
// Other offsets are kept.
func FormatISO(t time.Time) string { return string(AppendISO(make([]byte, 0, 32), t)) }

// AppendISO appends what FormatISO returns.
func AppendISO(dst []byte, t time.Time) []byte {
	dst = appendLocal(dst, t, 'T')
	_, offset := t.Zone()
	return appendOffset(dst, offset)
}

// appendLocal writes date and time of day without an offset.
func appendLocal(dst []byte, t time.Time, sep byte) []byte {
	year, month, day := t.Date()
	dst = appendDate(dst, year, int(month), day)
	dst = append(dst, sep)
	hour, minute, second := t.Clock()
	return appendClock(dst, hour, minute, second, t.Nanosecond()/1000)
}

func appendDate(dst []byte, year, month, day int) []byte {
	dst = appendPadded(dst, year, 4)
	dst = append(dst, '-')
	dst = appendPadded(dst, month, 2)
	dst = append(dst, '-')
	return appendPadded(dst, day, 2)
}

func appendClock(dst []byte, hour, minute, second, micro int) []byte {
	dst = appendPadded(dst, hour, 2)
	dst = append(dst, ':')
	dst = appendPadded(dst, minute, 2)
	dst = append(dst, ':')
	dst = appendPadded(dst, second, 2)
	dst = append(dst, '.')
	return appendPadded(dst, micro, 6)
}

// appendOffset writes ±HH:MM, with seconds only where a zone has them (local mean times), as Python does.
func appendOffset(dst []byte, offset int) []byte {
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	dst = append(dst, sign)
	dst = appendPadded(dst, offset/3600, 2)
	dst = append(dst, ':')
	dst = appendPadded(dst, offset/60%60, 2)
	if s := offset % 60; s != 0 {
		dst = append(dst, ':')
		dst = appendPadded(dst, s, 2)
	}
	return dst
}

func appendPadded(dst []byte, n, width int) []byte {
	if n < 0 { // no year below zero exists in Python; CheckTime refuses it before
		dst = append(dst, '-')
		n = -n
	}
	var digits [20]byte
	i := len(digits)
	for ; n > 0 || width > 0; width-- {
		i--
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, digits[i:]...)
}

var errYear = errors.New("year is outside of 1 to 9999, which Python's datetime holds")

// CheckTime reports an error for a time Python's datetime cannot hold.
func CheckTime(t time.Time) error {
	if y := t.Year(); y < 1 || y > 9999 {
		return errYear
	}
	return nil
}

// ParseISO reads a date as any Celery version writes it: without offset, with Z, ±HH:MM or ±HHMM; zero to nine
// fraction digits, of which those beyond microseconds are dropped; "T" or a space between date and time; or a date
// alone. Without an offset aware is false and the reading is returned as if it were UTC, which is also how Celery
// reads it.
func ParseISO(s string) (t time.Time, aware bool, err error) {
	c := cursor{rest: s}
	year, month, day := c.date()
	var hour, minute, second, micro, offset int
	if !c.failed && c.rest != "" {
		if !c.skip('T') && !c.skip(' ') && !c.skip('t') {
			c.failed = true
		}
		hour, minute, second, micro = c.clock()
		offset, aware = c.offset()
	}
	if c.failed || c.rest != "" {
		return time.Time{}, false, fmt.Errorf("invalid ISO 8601 date %q", clip(s))
	}
	loc := time.UTC
	if offset != 0 {
		loc = time.FixedZone("", offset)
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, micro*1000, loc), aware, nil
}

// ParseDate reads "2006-01-02". The time of a longer text is dropped: Celery 5.2 writes a date as midnight.
func ParseDate(s string) (Date, error) {
	t, _, err := ParseISO(s)
	if err != nil {
		return Date{}, err
	}
	year, month, day := t.Date()
	return Date{Year: year, Month: month, Day: day}, nil
}

// ParseLocalTime reads a datetime without offset.
func ParseLocalTime(s string) (LocalTime, error) {
	t, aware, err := ParseISO(s)
	if err == nil && aware {
		err = fmt.Errorf("%q has a time zone", clip(s))
	}
	if err != nil {
		return LocalTime{}, err
	}
	return LocalTime{t}, nil
}

// ParseTimeOfDay reads "15:04", "15:04:05" or "15:04:05.000006".
func ParseTimeOfDay(s string) (TimeOfDay, error) {
	c := cursor{rest: s}
	hour, minute, second, micro := c.clock()
	if c.failed || c.rest != "" {
		return 0, fmt.Errorf("invalid ISO 8601 time %q", clip(s))
	}
	d := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second +
		time.Duration(micro)*time.Microsecond
	return TimeOfDay(d), nil
}

// clip bounds what an error quotes.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}

// cursor reads fixed-width fields off the front of a text; after a failure it reads zeros.
type cursor struct {
	rest   string
	failed bool
}

func (c *cursor) skip(b byte) bool {
	if c.rest == "" || c.rest[0] != b {
		return false
	}
	c.rest = c.rest[1:]
	return true
}

func (c *cursor) need(b byte) {
	if !c.skip(b) {
		c.failed = true
	}
}

// digits reads exactly width digits, and fails unless the number lies between low and high.
func (c *cursor) digits(width, low, high int) int {
	if c.failed || len(c.rest) < width {
		c.failed = true
		return 0
	}
	n := 0
	for i := range width {
		d := c.rest[i] - '0'
		if d > 9 {
			c.failed = true
			return 0
		}
		n = n*10 + int(d)
	}
	if n < low || n > high {
		c.failed = true
		return 0
	}
	c.rest = c.rest[width:]
	return n
}

func (c *cursor) date() (year, month, day int) {
	year = c.digits(4, 1, 9999)
	c.need('-')
	month = c.digits(2, 1, 12)
	c.need('-')
	day = c.digits(2, 1, 31)
	if !c.failed && day > daysIn(year, month) {
		c.failed = true
	}
	return year, month, day
}

// daysIn relies on day zero of the next month being the last of this one.
func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

func (c *cursor) clock() (hour, minute, second, micro int) {
	hour = c.digits(2, 0, 23)
	c.need(':')
	minute = c.digits(2, 0, 59)
	if c.skip(':') {
		second = c.digits(2, 0, 59)
		if c.skip('.') || c.skip(',') {
			micro = c.fraction()
		}
	}
	return hour, minute, second, micro
}

func (c *cursor) fraction() (micro int) {
	n := 0
	for ; n < len(c.rest) && c.rest[n]-'0' <= 9; n++ {
		if n < 6 {
			micro = micro*10 + int(c.rest[n]-'0')
		}
	}
	if n > 9 {
		c.failed = true
	}
	for i := n; i < 6; i++ {
		micro *= 10
	}
	c.rest = c.rest[n:]
	return micro
}

func (c *cursor) offset() (seconds int, aware bool) {
	if c.failed || c.rest == "" {
		return 0, false
	}
	if c.skip('Z') || c.skip('z') {
		return 0, true
	}
	sign := 1
	if c.skip('-') {
		sign = -1
	} else {
		c.need('+')
	}
	seconds = c.digits(2, 0, 23) * 3600
	if c.skip(':') {
		seconds += c.digits(2, 0, 59) * 60
		if c.skip(':') {
			seconds += c.digits(2, 0, 59)
		}
	} else if c.rest != "" {
		seconds += c.digits(2, 0, 59) * 60
	}
	return sign * seconds, true
}

// String returns the date as 2006-01-02.
func (d Date) String() string { return string(d.append(nil)) }

func (d Date) append(dst []byte) []byte { return appendDate(dst, d.Year, int(d.Month), d.Day) }

// Valid reports whether Python's date can hold d.
func (d Date) Valid() bool {
	return d.Year >= 1 && d.Year <= 9999 && d.Month >= 1 && d.Month <= 12 &&
		d.Day >= 1 && d.Day <= daysIn(d.Year, int(d.Month))
}

// MarshalText and UnmarshalText let encoding/json and others carry a Date as text.
func (d Date) MarshalText() ([]byte, error) { return d.append(nil), nil }

// UnmarshalText reads what ParseDate reads.
func (d *Date) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDate(string(text))
	return err
}

// String returns the time as 15:04:05.000000.
func (t TimeOfDay) String() string { return string(t.append(nil)) }

func (t TimeOfDay) append(dst []byte) []byte {
	hour, minute, second, micro := t.clock()
	return appendClock(dst, hour, minute, second, micro)
}

func (t TimeOfDay) clock() (hour, minute, second, micro int) {
	d := time.Duration(t)
	return int(d / time.Hour), int(d / time.Minute % 60), int(d / time.Second % 60), int(d / time.Microsecond % 1e6)
}

// Valid reports whether t lies within one day.
func (t TimeOfDay) Valid() bool { return t >= 0 && time.Duration(t) < 24*time.Hour }

// MarshalText and UnmarshalText let encoding/json and others carry a TimeOfDay as text.
func (t TimeOfDay) MarshalText() ([]byte, error) { return t.append(nil), nil }

// UnmarshalText reads what ParseTimeOfDay reads.
func (t *TimeOfDay) UnmarshalText(text []byte) (err error) {
	*t, err = ParseTimeOfDay(string(text))
	return err
}

// String returns the reading as 2006-01-02T15:04:05.000000.
func (l LocalTime) String() string { return string(l.append(nil)) }

func (l LocalTime) append(dst []byte) []byte { return appendLocal(dst, l.Time, 'T') }

// MarshalText hides the method of the embedded Time, which would add a time zone.
func (l LocalTime) MarshalText() ([]byte, error) { return l.append(nil), nil }

// UnmarshalText reads what ParseLocalTime reads.
func (l *LocalTime) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLocalTime(string(text))
	return err
}

// MarshalJSON hides the method of the embedded Time too.
func (l LocalTime) MarshalJSON() ([]byte, error) { return json.Marshal(l.String()) }

// UnmarshalJSON reads a JSON string as UnmarshalText does.
func (l *LocalTime) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	return l.UnmarshalText([]byte(text))
}

// AppendText appends the text form of one of the package's own time types, a time.Time, a Decimal or a UUID, as
// serializers without a form for them write it. ok is false for any other type.
func AppendText(dst []byte, v any) (text []byte, ok bool) {
	switch v := v.(type) {
	case time.Time:
		return AppendISO(dst, v), true
	case LocalTime:
		return v.append(dst), true
	case Date:
		return v.append(dst), true
	case TimeOfDay:
		return v.append(dst), true
	case Decimal:
		return append(dst, v...), true
	case uuid.UUID:
		return append(dst, v.String()...), true
	}
	return dst, false
}
