package scheduler

import (
	"testing"
	"time"
)

// An interval with a start begins there, as in django-celery-beat, and keeps to its last run if that leads beyond the start.
func TestIntervalBeginsWithItsStart(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	every, err := Every(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	daily, err := ParseCrontab("0 12 * * *", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		schedule Schedule
		last     time.Time
		want     time.Time
	}{
		{"never run", every, time.Time{}, start},
		{"long ago", every, start.Add(-24 * time.Hour), start},
		{"shortly before", every, start.Add(-time.Minute), start.Add(59 * time.Minute)},
		{"after it", every, start.Add(time.Minute), start.Add(61 * time.Minute)},
		{"crontab", daily, start.Add(-time.Minute), start},
	} {
		e := &Entry{Name: "e", Schedule: tt.schedule, Start: start}
		state := State{LastRunAt: tt.last}
		if got := e.Due(state); !got.Equal(tt.want) {
			t.Errorf("%s: due at %v, not %v", tt.name, got, tt.want)
		}
		m := Mark{Entry: e, State: state}
		if got := m.choose(tt.want); len(got) != 1 || !got[0].Equal(tt.want) {
			t.Errorf("%s: sends %v, not %v", tt.name, got, tt.want)
		}
	}
}
