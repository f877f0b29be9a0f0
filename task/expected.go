package task

import (
	"errors"
	"fmt"
	"slices"
)

// Throws names errors that the task is known to return: it has failed with them like with any other, but its worker logs
// them at INFO, as "raised expected", and without a traceback. They are found by errors.Is; a [PyError] means every error
// stored as that class or one derived from it. Celery: throws.
func Throws(errs ...error) DefineOption {
	return forDefine("Throws", errs, func(s *settings, v []error) error {
		if len(v) == 0 || slices.Contains(v, nil) {
			return fmt.Errorf("%d errors, none of which may be nil", len(v))
		}
		s.Throws = append(s.Throws, v...)
		return nil
	})
}

// Expected marks one error of a task like those of [Throws]: FAILURE, logged at INFO. Nil stays nil.
func Expected(err error) error {
	if err == nil {
		return nil
	}
	return &expectedError{err}
}

// expectedError says nothing itself: it is stored as what it wraps.
type expectedError struct{ error }

func (e *expectedError) Unwrap() error { return e.error }

// Expects reports whether an error is one that the task is known to return, by [Throws] or [Expected].
func (d *Defaults) Expects(err error) bool {
	if _, marked := errors.AsType[*expectedError](err); marked {
		return true
	}
	return len(d.Throws) > 0 && isAny(err, d.Throws)
}
