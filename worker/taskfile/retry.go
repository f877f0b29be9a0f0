package taskfile

import (
	"errors"
	"fmt"
	"time"

	"github.com/gelery/gelery/task"
)

// retry says how often and after which time a failed run is tried again, where an action asks for that.
type retry struct {
	Max     *int   `yaml:"max"`         // default 3; negative: for ever
	Delay   period `yaml:"delay"`       // default 180 s, Celery's default_retry_delay
	Backoff period `yaml:"backoff"`     // the delay is backoff·2^retries, with jitter, in place of Delay
	Ceiling period `yaml:"backoff_max"` // of a growing delay; default 600 s
	Jitter  *bool  `yaml:"jitter"`      // a random part of a growing delay; default true
}

// errAgain is what every run that is to be tried again returns, by errors.Is.
var errAgain = errors.New("try again")

// againError is a failure that asks for another run.
type againError struct{ error }

func (e againError) Is(target error) bool { return target == errAgain }
func (e againError) Unwrap() error        { return e.error }

// retryOf is the error that has a run tried again: after what the endpoint asked for, else by the policy.
func retryOf(err error, after time.Duration) error {
	if after > 0 {
		return task.Retry(err, task.Countdown(after))
	}
	return againError{err}
}

// policy is the task's policy; what the file leaves out is Celery's default.
func (e *entry) policy(complain func(string, ...any)) []task.DefineOption {
	p := task.RetryPolicy{On: []error{errAgain}}
	r := e.Retry
	if r == nil {
		return []task.DefineOption{p}
	}
	if r.Backoff > 0 && time.Duration(r.Backoff) < time.Second || r.Ceiling > 0 && time.Duration(r.Ceiling) < time.Second {
		complain("retry: backoff and backoff_max count in whole seconds")
		return nil
	}
	if r.Backoff == 0 && (r.Ceiling > 0 || r.Jitter != nil) {
		complain("retry: backoff_max and jitter mean nothing without backoff")
	}
	p.Backoff, p.BackoffMax, p.NoJitter = time.Duration(r.Backoff), time.Duration(r.Ceiling), r.Jitter != nil && !*r.Jitter
	options := []task.DefineOption{p}
	if r.Backoff > 0 && r.Delay > 0 {
		complain("retry: delay %v and backoff %v: only one of them can be", time.Duration(r.Delay), time.Duration(r.Backoff))
	} else if r.Delay > 0 {
		options = append(options, task.RetryDelay(time.Duration(r.Delay)))
	}
	if r.Max != nil {
		options = append(options, task.MaxRetries(*r.Max))
	}
	return options
}

// String keeps a period readable in messages.
func (p period) String() string { return fmt.Sprint(time.Duration(p)) }
