package scheduler

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// CrontabFields are the arguments of Celery's crontab under their names. An empty one is "*". Each is a list of numbers, names
// and ranges with steps, as in "*/15", "8-18/2,22", "mon-fri"; a range may go over the end, as in "fri-mon" or "22-4". A run is
// when all five match: "0 0" on day_of_month "13" and day_of_week "fri" is a Friday the 13th, not each of both as in cron.
type CrontabFields struct {
	Minute      string // 0 to 59
	Hour        string // 0 to 23
	DayOfWeek   string // 0 to 6 or names, Sunday is 0; also 7
	DayOfMonth  string // 1 to 31
	MonthOfYear string // 1 to 12 or names

	// Zone is where the clock stands. nil: UTC.
	Zone *time.Location
}

// Crontab is celery.schedules.crontab.
type Crontab struct {
	fields                                 CrontabFields
	minutes, hours, days, months, weekdays set
	elapsing                               bool // by the hours that pass: see the package's documentation
}

// FieldError is a mistake in a field of a crontab.
type FieldError struct {
	Field string // Celery's name: "day_of_week"
	Text  string
	Err   error // what is wrong and what is allowed
}

func (e *FieldError) Error() string { return fmt.Sprintf("%s %.100q: %v", e.Field, e.Text, e.Err) }
func (e *FieldError) Unwrap() error { return e.Err }

// NewCrontab makes a crontab. Its errors are *FieldError. More is taken than Celery takes: 7 for Sunday, names of months in every
// version, "?" for "*", spaces around the parts of a list; and refused is what Celery takes without heeding it: "1-3-5", "mon/2",
// the name of a month in another field. Dates that do not exist, such as 30 February, are refused.
func NewCrontab(f CrontabFields) (*Crontab, error) {
	c := &Crontab{fields: f}
	if c.fields.Zone == nil {
		c.fields.Zone = time.UTC
	}
	for _, field := range []struct {
		*cronField
		text *string
		into *set
	}{
		{&minuteField, &c.fields.Minute, &c.minutes}, {&hourField, &c.fields.Hour, &c.hours}, {&weekdayField, &c.fields.DayOfWeek, &c.weekdays},
		{&dayField, &c.fields.DayOfMonth, &c.days}, {&monthField, &c.fields.MonthOfYear, &c.months},
	} {
		if *field.text == "" {
			*field.text = "*"
		}
		var err error
		if *field.into, err = field.parse(*field.text); err != nil {
			return nil, &FieldError{Field: field.name, Text: *field.text, Err: err}
		}
	}
	hour := strings.TrimSpace(c.fields.Hour)
	c.elapsing = hour[0] == '*' || hour[0] == '?' || c.hours == 1<<24-1
	if !c.exists() {
		return nil, &FieldError{Field: dayField.name, Text: c.fields.DayOfMonth, Err: fmt.Errorf("month_of_year %q has no such day", c.fields.MonthOfYear)}
	}
	return c, nil
}

// ParseCrontab makes a crontab of the five fields in the order of a line of cron, with Celery's meaning: crontab.from_string. A nil
// zone is UTC.
func ParseCrontab(text string, zone *time.Location) (*Crontab, error) {
	f := strings.Fields(text)
	if len(f) != 5 {
		return nil, fmt.Errorf("crontab %.100q: it has %d fields, not 5: minute, hour, day of month, month of year, day of week", text, len(f))
	}
	return NewCrontab(CrontabFields{Minute: f[0], Hour: f[1], DayOfMonth: f[2], MonthOfYear: f[3], DayOfWeek: f[4], Zone: zone})
}

// Fields are the fields as they were given, none of them empty, and the zone.
func (c *Crontab) Fields() CrontabFields { return c.fields }

// Numbers are the fields written out, as in "0,15,30,45", a field that has all its numbers as "*": what anything reads that reads
// crontabs.
func (c *Crontab) Numbers() CrontabFields {
	write := func(f *cronField, s set) string {
		var all []string
		for n := f.min; n <= f.max; n++ {
			if s.has(n) {
				all = append(all, strconv.Itoa(n))
			}
		}
		if len(all) == f.max-f.min+1 {
			return "*"
		}
		return strings.Join(all, ",")
	}
	return CrontabFields{
		Minute: write(&minuteField, c.minutes), Hour: write(&hourField, c.hours), DayOfWeek: write(&weekdayField, c.weekdays),
		DayOfMonth: write(&dayField, c.days), MonthOfYear: write(&monthField, c.months), Zone: c.fields.Zone,
	}
}

// exists tells whether there is any such date. Each day of a year falls on each day of the week, 29 February in 28 or 40 years.
func (c *Crontab) exists() bool {
	for month := time.January; month <= time.December; month++ {
		if c.months.has(int(month)) && c.days.next(1) <= daysIn(2024, month) {
			return true
		}
	}
	return false
}

// String is Celery's repr of today: minute, hour, day of month, month, day of week.
func (c *Crontab) String() string {
	f := c.fields
	return fmt.Sprintf("<crontab: %s %s %s %s %s (m/h/dM/MY/d)>", f.Minute, f.Hour, f.DayOfMonth, f.MonthOfYear, f.DayOfWeek)
}

// Next is the first run after t, in the location of t.
func (c *Crontab) Next(t time.Time) time.Time {
	if c.elapsing {
		return c.nextElapsing(t)
	}
	// The moments the clock shows after t come after t; of those it shows a second time the first was before.
	for shown := c.match(civilOf(t.In(c.fields.Zone)) + 1); shown != never; shown = c.match(shown + 1) {
		if run := firstShowing(shown, c.fields.Zone); run.After(t) {
			return run.In(t.Location())
		}
	}
	return time.Time{}
}

// nextElapsing looks at one period of the zone after the other.
func (c *Crontab) nextElapsing(t time.Time) time.Time {
	from := t.Truncate(time.Second).Add(time.Second) // the first whole second after t
	for {
		p := periodAt(from, c.fields.Zone)
		shown := c.match(civil(from.Unix() + p.offset))
		if shown == never {
			return time.Time{}
		}
		if run := p.shows(shown); p.end.IsZero() || run.Before(p.end) {
			return run.In(t.Location())
		}
		from = p.end
	}
}

// never is no civil time.
const never = civil(-1 << 62)

// searchedYears is how far away a date may be: 29 February falls on one day of the week every 28 years, over 2100 every 40.
const searchedYears = 41

// match is the first civil time, from c on, that matches all fields.
func (c *Crontab) match(from civil) civil {
	at := (from + 59).date().Truncate(time.Minute)
	year, month, day := at.Date()
	hour, minute, _ := at.Clock()
	for last := year + searchedYears; year <= last; year, month, day = year+1, time.January, 1 {
		for ; month <= time.December; month, day = month+1, 1 {
			if !c.months.has(int(month)) {
				hour, minute = 0, 0
				continue
			}
			first := int(time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).Weekday())
			for end := daysIn(year, month); day <= end; day++ {
				if c.days.has(day) && c.weekdays.has((first+day-1)%7) {
					if h, m, ok := c.clock(hour, minute); ok {
						return civil(time.Date(year, month, day, h, m, 0, 0, time.UTC).Unix())
					}
				}
				hour, minute = 0, 0
			}
		}
	}
	return never
}

// clock is the first time of a day from one on.
func (c *Crontab) clock(hour, minute int) (h, m int, ok bool) {
	if c.hours.has(hour) {
		if m = c.minutes.next(minute); m < 60 {
			return hour, m, true
		}
	}
	h = c.hours.next(hour + 1)
	return h, c.minutes.next(0), h < 24
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// set is a set of numbers from 0 to 63.
type set uint64

func (s set) has(n int) bool { return s>>n&1 != 0 }

// next is the first member from n on, 64 if there is none.
func (s set) next(n int) int { return bits.TrailingZeros64(uint64(s >> n << n)) }
