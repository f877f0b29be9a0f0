package scheduler

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/internal/exposition"
)

// latenessBounds are those of the histogram, in seconds.
var latenessBounds = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 3600}

// stats are counted by the beat and read by anybody.
type stats struct {
	running      atomic.Bool
	leading      atomic.Bool
	counts       atomic.Pointer[Counts] // nil: not known
	counted      time.Time              // when they were asked for; the loop's own
	looked       atomic.Int64           // unix nanoseconds of the last answer of the store
	runs, failed atomic.Int64
	skipped      atomic.Int64
	next         atomic.Int64 // unix nanoseconds of what is due next; 0: nothing
	storeErrors  atomic.Int64
	brokerErrors atomic.Int64
	lateness     atomic.Int64      // of the last run, in nanoseconds
	late         [16]atomic.Uint64 // by latenessBounds
	totalLate    atomic.Int64      // nanoseconds
}

func (s *stats) sent(late time.Duration) {
	s.runs.Add(1)
	s.lateness.Store(int64(late))
	i, _ := slices.BinarySearch(latenessBounds, late.Seconds())
	s.late[i].Add(1)
	s.totalLate.Add(int64(late))
}

// expects notes when something is due next; the zero time: nothing is.
func (s *stats) expects(next time.Time) {
	if next.IsZero() {
		s.next.Store(0)
	} else {
		s.next.Store(next.UnixNano())
	}
}

// Stats are what a beat tells of itself.
type Stats struct {
	Leading      bool
	Entries      *Counts       // for a beat that leads; nil: not known
	Looked       time.Time     // when the store was asked last; zero: never
	Sent         int64         // runs the broker has
	Failed       int64         // runs that could not be made or sent, and were left out
	Skipped      int64         // how often an entry's missed moments were left out, as its Missed or Deadline says
	Next         time.Time     // when something is due next, for a beat that leads; zero: nothing is
	StoreErrors  int64         // failures of the store, which were tried again
	BrokerErrors int64         // failures of the broker, which were tried again
	Lateness     time.Duration // by how much the last run was sent after its moment
}

// Stats are the figures of now.
func (b *Beat) Stats() Stats {
	s := Stats{Leading: b.stats.leading.Load(), Sent: b.stats.runs.Load(), Failed: b.stats.failed.Load(), StoreErrors: b.stats.storeErrors.Load(),
		BrokerErrors: b.stats.brokerErrors.Load(), Lateness: time.Duration(b.stats.lateness.Load())}
	s.Entries = b.stats.counts.Load()
	s.Skipped = b.stats.skipped.Load()
	if n := b.stats.next.Load(); n != 0 {
		s.Next = time.Unix(0, n)
	}
	if n := b.stats.looked.Load(); n != 0 {
		s.Looked = time.Unix(0, n)
	}
	return s
}

// Metrics are the figures of now in Prometheus's text format.
func (b *Beat) Metrics() []byte {
	s := b.Stats()
	var t exposition.Text
	leading := 0.0
	if s.Leading {
		leading = 1
	}
	seconds := func(at time.Time) float64 {
		if at.IsZero() {
			return 0
		}
		return float64(at.UnixMilli()) / 1000
	}
	for _, m := range []struct {
		name, kind, help string
		value            float64
	}{
		{"gelery_beat_leading", "gauge", "1 if this beat sends, 0 if it stands by.", leading},
		{"gelery_beat_looked_timestamp_seconds", "gauge", "When the store told last what is due; 0 before the first time.", seconds(s.Looked)},
		{"gelery_beat_next_due_timestamp_seconds", "gauge", "When something is due next; 0 if nothing is, or this beat stands by.", seconds(s.Next)},
		{"gelery_beat_sent_total", "counter", "Runs that the broker has taken.", float64(s.Sent)},
		{"gelery_beat_failed_total", "counter", "Runs that could not be made or sent, and were left out.", float64(s.Failed)},
		{"gelery_beat_skipped_total", "counter", "Times that an entry's missed moments were left out, as its missed or deadline says.", float64(s.Skipped)},
		{"gelery_beat_store_errors_total", "counter", "Failures of the store, which are tried again.", float64(s.StoreErrors)},
		{"gelery_beat_broker_errors_total", "counter", "Failures of the broker, which are tried again.", float64(s.BrokerErrors)},
	} {
		t.Family(m.name, m.kind, m.help)
		t.Sample(m.value)
	}
	if s.Entries != nil {
		s.Entries.write(&t)
	}
	counts := make([]uint64, len(b.stats.late))
	for i := range counts {
		counts[i] = b.stats.late[i].Load()
	}
	t.Family("gelery_beat_lateness_seconds", "histogram", "By how much runs were sent after their moments.")
	t.Histogram(latenessBounds, counts, time.Duration(b.stats.totalLate.Load()).Seconds())
	return t.Bytes()
}

// overdue is for how long a leading beat may not have asked its store, beyond its MaxInterval, and count as well.
const overdue = 15 * time.Second

// silence is for how long the store has not answered a beat that leads, beyond what is well; 0 if it is well.
func (b *Beat) silence() time.Duration {
	s := b.Stats()
	if !s.Leading || s.Looked.IsZero() {
		return 0
	}
	if silent := b.now().Sub(s.Looked); silent > b.config.MaxInterval+overdue {
		return silent
	}
	return 0
}

// Live says why the beat does not live, "" if it does. It outlasts whatever happens to store and broker, so another process would do no
// better.
func (*Beat) Live() string { return "" }

// Ready says why the beat neither sends nor stands by, "" if it does.
func (b *Beat) Ready() string {
	switch silent := b.silence(); {
	case silent > 0:
		return fmt.Sprintf("nothing was sent or looked at for %v: the store or the broker does not answer", silent.Round(time.Second))
	case !b.stats.running.Load():
		return "the beat does not run"
	}
	return ""
}
