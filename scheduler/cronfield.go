package scheduler

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// cronField is one of the five and what it may hold.
type cronField struct {
	name     string
	min, max int
	names    []string // of the numbers from min on; three letters of one suffice
	sunday   bool     // one more than max is min
}

var (
	minuteField  = cronField{name: "minute", max: 59}
	hourField    = cronField{name: "hour", max: 23}
	dayField     = cronField{name: "day_of_month", min: 1, max: 31}
	monthField   = cronField{name: "month_of_year", min: 1, max: 12, names: []string{"january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"}}
	weekdayField = cronField{name: "day_of_week", max: 6, sunday: true, names: []string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}}
)

// maxField bounds the text of a field.
const maxField = 1000

func (f *cronField) parse(text string) (s set, err error) {
	if len(text) > maxField {
		return 0, fmt.Errorf("it is longer than %d characters", maxField)
	}
	for part := range strings.SplitSeq(text, ",") {
		members, err := f.part(strings.TrimSpace(part))
		if err != nil {
			return 0, err
		}
		for _, n := range members {
			s |= 1 << n
		}
	}
	return s, nil
}

// part is the numbers of one part of the list, in the order in which steps are counted.
func (f *cronField) part(text string) ([]int, error) {
	span, steps, stepped := strings.Cut(text, "/")
	members, err := f.span(span)
	if err != nil || !stepped {
		return members, err
	}
	if len(members) == 1 && !strings.Contains(span, "-") {
		return nil, fmt.Errorf("%q: a step needs a range before it, as in %s-%d/%s or */%s", text, span, f.max, steps, steps)
	}
	step, err := number(steps)
	if err != nil || step < 1 {
		return nil, fmt.Errorf("%q: a step is a whole number from 1 on", text)
	}
	var stepping []int
	for i := 0; i < len(members); i += step {
		stepping = append(stepping, members[i])
	}
	return stepping, nil
}

func (f *cronField) span(text string) ([]int, error) {
	if text == "*" || text == "?" {
		return f.between(f.min, f.max), nil
	}
	first, last, ranging := strings.Cut(text, "-")
	from, err := f.number(first)
	if err != nil {
		return nil, err
	}
	to := from
	if ranging {
		if to, err = f.number(last); err != nil {
			return nil, err
		}
	}
	return f.between(from, to), nil
}

// between is a range, over the end where it begins behind its end.
func (f *cronField) between(from, to int) (members []int) {
	size := f.max - f.min + 1
	if to < from {
		to += size
	}
	for n := from; n <= to; n++ {
		members = append(members, f.min+(n-f.min)%size)
	}
	return members
}

func (f *cronField) number(text string) (int, error) {
	limit := f.max
	if f.sunday {
		limit++
	}
	n, err := number(text)
	switch {
	case err == nil && n >= f.min && n <= limit:
		return n, nil
	case text == "":
		return 0, errors.New("a part of it is empty; " + f.allowed())
	case err == nil:
		return 0, fmt.Errorf("%d is not among %s", n, f.allowed())
	}
	name := strings.ToLower(text)
	for i, whole := range f.names {
		if len(name) >= 3 && strings.HasPrefix(whole, name) {
			return f.min + i, nil
		}
	}
	return 0, fmt.Errorf("%.40q is not among %s", text, f.allowed())
}

func (f *cronField) allowed() string {
	numbers := fmt.Sprintf("the numbers from %d to %d", f.min, f.max)
	if len(f.names) > 0 {
		return fmt.Sprintf("%s and the names from %s to %s", numbers, f.names[0], f.names[len(f.names)-1])
	}
	return numbers
}

// number reads digits and nothing else.
func number(text string) (int, error) {
	if text == "" || strings.Trim(text, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.Atoi(text)
}
