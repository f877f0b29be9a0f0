package task

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Rate is how many runs may begin in a second; 0 sets no limit.
type Rate float64

// longest is what stands for every longer time between two runs.
const longest = 10 * 365 * 24 * time.Hour

// ParseRate reads a rate as Celery writes it: "10/s", "10/m", "10/h" or a number, which is one a second. "" and "0" are
// no limit. It refuses anything else, and what is negative or not finite.
func ParseRate(text string) (Rate, error) {
	if text == "" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || strings.ContainsAny(number, "xX") {
		return 0, rateError(text)
	}
	switch unit {
	case "", "s":
	case "m":
		n /= 60
	case "h":
		n /= 3600
	default:
		return 0, rateError(text)
	}
	if n < 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, rateError(text)
	}
	return Rate(n), nil
}

func rateError(text string) error {
	return fmt.Errorf(`%q is not a rate; use "10/s", "10/m", "10/h", a number of runs a second, or "" for no limit`, text)
}

// Interval is the time between two runs at this rate; 0 when there is no limit.
func (r Rate) Interval() time.Duration {
	if r <= 0 {
		return 0
	}
	return time.Duration(min(float64(time.Second)/float64(r), float64(longest)))
}

// RateLimit lets runs of the task begin no more often than this in each worker: "10/s", "10/m", "10/h", or a number of
// runs a second. There are no bursts: the runs are spread evenly. What waits holds up no other task. "" and 0 set no limit,
// whatever the worker's default is. Celery: rate_limit.
func RateLimit[R ~string | ~int | ~float64](rate R) DefineOption {
	return forDefine("RateLimit", fmt.Sprint(rate), func(s *settings, v string) error {
		s.RateLimit = &v
		_, err := ParseRate(v)
		return err
	})
}

// Concurrency lets at most n runs of the task go on at once in each worker. What waits holds up no other task, and takes
// no slot. Celery has nothing like it.
func Concurrency(n int) DefineOption {
	return forDefine("Concurrency", n, func(s *settings, v int) error {
		if v < 1 {
			return fmt.Errorf("%d is not at least 1", v)
		}
		s.Concurrency = v
		return nil
	})
}
