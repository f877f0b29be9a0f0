package task

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// RetryPolicy retries a task by itself when it returns one of some errors: Celery's autoretry_for and what belongs to it.
// It is an option of the task's definition:
//
//	task.Define[Args, int]("shop.tasks.charge", task.RetryPolicy{On: []error{ErrBusy}, Backoff: time.Second, MaxRetries: 5})
//
// [Retry], [Reject] and [Ignore] are obeyed as ever. A panic counts as the RuntimeError it is stored as, a soft time limit
// as [ErrSoftTimeLimit]; a run given up at its hard limit is not retried.
type RetryPolicy struct {
	// On are the errors to retry on, by errors.Is; a [PyError] means every error stored as that class or one derived from
	// it. autoretry_for.
	On []error
	// OnPython are Python classes as PyError takes them, for short: "ConnectionError", "shop.errors.Busy"; "Exception" is
	// every error.
	OnPython []string
	// Except are errors not to retry on though On has them. dont_autoretry_for.
	Except []error
	// Backoff is the factor of a growing delay, in whole seconds and at least one: Backoff·2^retries. 0: no growing delay.
	// retry_backoff.
	Backoff time.Duration
	// BackoffMax bounds the growing delay, in whole seconds. Default 600 s. retry_backoff_max.
	BackoffMax time.Duration
	// NoJitter takes the growing delay as it is. Without it the delay is a random number of seconds from 0 to it, both
	// included. retry_jitter=False.
	NoJitter bool
	// Delay is the delay without Backoff. Default: the task's [RetryDelay]. retry_kwargs["countdown"].
	Delay time.Duration
	// MaxRetries replaces the task's own [MaxRetries]; negative: no limit. Default: the task's.
	// retry_kwargs["max_retries"].
	MaxRetries int
}

const defaultBackoffMax = 600 * time.Second

func (p RetryPolicy) String() string {
	type plain RetryPolicy // without this method
	return fmt.Sprintf("RetryPolicy%+v", plain(p))
}

func (p RetryPolicy) applyDefine(s *settings) error {
	switch {
	case len(p.On)+len(p.OnPython) == 0:
		return errors.New("neither On nor OnPython names an error to retry on")
	case slices.Contains(p.On, nil) || slices.Contains(p.Except, nil):
		return errors.New("On and Except hold errors, and nil is none")
	case slices.ContainsFunc(p.OnPython, notAClass):
		return fmt.Errorf("OnPython %q: a class is named as in \"ValueError\" or \"shop.errors.Busy\"", p.OnPython)
	case p.Backoff < 0 || p.Delay < 0:
		return fmt.Errorf("Backoff %v, Delay %v: a delay is not negative", p.Backoff, p.Delay)
	case p.Backoff > 0 && p.Delay > 0:
		return fmt.Errorf("Backoff %v and Delay %v: only one of them can be", p.Backoff, p.Delay)
	case p.BackoffMax != 0 && p.BackoffMax < time.Second:
		return fmt.Errorf("BackoffMax %v is less than a second", p.BackoffMax)
	}
	p.On, p.Except = slices.Clone(p.On), slices.Clone(p.Except)
	for _, class := range p.OnPython {
		p.On = append(p.On, PyError(class))
	}
	p.OnPython = nil
	s.RetryPolicy = &p
	return nil
}

func notAClass(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "."), func(word string) bool {
		return word == "" || strings.ContainsAny(word, " \t\n'\"()[]{},;:*?<>")
	})
}

// wants reports whether the policy retries on an error.
func (p *RetryPolicy) wants(err error) bool {
	return p != nil && isAny(err, p.On) && !isAny(err, p.Except)
}

// isAny is errors.Is for several targets, where a PyError also matches an error that is stored as the class.
func isAny(err error, targets []error) bool {
	var name string
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
		if class, ok := target.(pyClass); ok { //nolint:errorlint // it is what the user has put there, not wrapped
			if name == "" {
				x := ExceptionOf(err)
				name = either(x.Module, "builtins") + "." + x.Type
			}
			if derives(name, string(class)) {
				return true
			}
		}
	}
	return false
}

// delay is the policy's own delay before the next attempt; false leaves it to the task. The arithmetic is Celery's
// get_exponential_backoff_interval; random gives a number from 0 to below n.
func (p *RetryPolicy) delay(retries int, random func(n int64) int64) (time.Duration, bool) {
	if p.Backoff == 0 {
		return p.Delay, p.Delay > 0
	}
	factor := max(1, int64(p.Backoff/time.Second))
	most := int64(either(p.BackoffMax, defaultBackoffMax) / time.Second)
	seconds := most
	if shift := max(retries, 0); shift < 62 && factor <= most>>shift {
		seconds = factor << shift
	}
	if !p.NoJitter {
		seconds = random(seconds + 1)
	}
	return time.Duration(seconds) * time.Second, true
}
