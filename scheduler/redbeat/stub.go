package redbeat

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/gelery/gelery/scheduler"
)

type codec struct {
	prefix string
	zone   *time.Location
}

var errToCome = errors.New("redbeat: to come")

func (s *Store) putStatic(context.Context) error { return nil }

// Lead is to come.
func (s *Store) Lead(context.Context) (scheduler.Lease, error) { return nil, errToCome }

// Entries is to come.
func (s *Store) Entries(context.Context) iter.Seq2[scheduler.Record, error] {
	return func(yield func(scheduler.Record, error) bool) { yield(scheduler.Record{}, errToCome) }
}

// Entry is to come.
func (s *Store) Entry(context.Context, string) (scheduler.Record, error) {
	return scheduler.Record{}, errToCome
}

// Put is to come.
func (s *Store) Put(context.Context, *scheduler.Entry) error { return errToCome }

// Pause is to come.
func (s *Store) Pause(context.Context, string, bool) error { return errToCome }

// Remove is to come.
func (s *Store) Remove(context.Context, string) error { return errToCome }
