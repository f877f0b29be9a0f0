package scheduler

import (
	"sync/atomic"
	"time"
)

// stats are counted by the beat and read by anybody.
type stats struct {
	leading      atomic.Bool
	looked       atomic.Int64 // unix nanoseconds of the last answer of the store
	runs, failed atomic.Int64
	storeErrors  atomic.Int64
	brokerErrors atomic.Int64
	lateness     atomic.Int64 // of the last run, in nanoseconds
}

func (s *stats) sent(late time.Duration) {
	s.runs.Add(1)
	s.lateness.Store(int64(late))
}

// Stats are what a beat tells of itself.
type Stats struct {
	Leading      bool
	Looked       time.Time     // when the store was asked last; zero: never
	Sent         int64         // runs the broker has
	Failed       int64         // runs that could not be made or sent, and were left out
	StoreErrors  int64         // failures of the store, which were tried again
	BrokerErrors int64         // failures of the broker, which were tried again
	Lateness     time.Duration // by how much the last run was sent after its moment
}

// Stats are the figures of now.
func (b *Beat) Stats() Stats {
	s := Stats{Leading: b.stats.leading.Load(), Sent: b.stats.runs.Load(), Failed: b.stats.failed.Load(), StoreErrors: b.stats.storeErrors.Load(),
		BrokerErrors: b.stats.brokerErrors.Load(), Lateness: time.Duration(b.stats.lateness.Load())}
	if n := b.stats.looked.Load(); n != 0 {
		s.Looked = time.Unix(0, n)
	}
	return s
}
