package taskfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gelery/gelery/task"
)

// action is what an exit code or an HTTP status means.
type action string

const (
	success action = "success"
	failed  action = "failure"
	again   action = "retry"
	reject  action = "reject" // as task.Reject without requeue: dropped or dead-lettered, nothing stored
	ignore  action = "ignore" // as task.Ignore: nothing stored
)

var allActions = []action{success, failed, again, reject, ignore}

// actions map codes to actions: "0", "1-9", "5xx" for statuses, "*" for all that no other names. The narrowest wins.
type actions map[string]action

// codes is one key of actions.
type codes struct {
	from, to int
	then     action
}

// rules checks the map; most is the highest code there is.
func (a actions) rules(most int, defaults actions) ([]codes, error) {
	merged := actions{}
	for k, v := range defaults {
		merged[k] = v
	}
	for k, v := range a {
		merged[k] = v
	}
	var rules []codes
	var wrong []error
	for key, then := range merged {
		r, err := parseCodes(key, most)
		if err != nil {
			wrong = append(wrong, err)
		}
		if !slices.Contains(allActions, then) {
			wrong = append(wrong, fmt.Errorf("%s: %q is none of success, failure, retry, reject, ignore", key, then))
		}
		r.then = then
		rules = append(rules, r)
	}
	slices.SortFunc(rules, func(a, b codes) int {
		if d := (a.to - a.from) - (b.to - b.from); d != 0 {
			return d
		}
		return a.from - b.from
	})
	return rules, errors.Join(wrong...)
}

func parseCodes(key string, most int) (codes, error) {
	if key == "*" {
		return codes{from: 0, to: most}, nil
	}
	first, last, isRange := strings.Cut(key, "-")
	if hundreds, ok := strings.CutSuffix(key, "xx"); ok {
		first, last, isRange = hundreds+"00", hundreds+"99", true
	}
	if !isRange {
		last = first
	}
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || from < 0 || to < from || to > most {
		return codes{}, fmt.Errorf("%q is no code: expected a number up to %d, a range such as 1-9, or *", key, most)
	}
	return codes{from: from, to: to}, nil
}

func choose(rules []codes, code int) action {
	for _, r := range rules {
		if r.from <= code && code <= r.to {
			return r.then
		}
	}
	return failed
}

// conclude turns an action into what a handler returns. err describes what happened; after is when to try again, 0 for the
// task's own delay.
func conclude(a action, err error, after time.Duration) error {
	switch a {
	case success:
		return nil
	case reject:
		return task.Reject(err, false)
	case ignore:
		return task.Ignore
	case again:
		return retryOf(err, after)
	}
	return err
}
