package scheduler

import (
	"math"
	"strings"
	"testing"
	"time"
)

// TestSolar: what ephem says of 21 June 2026, as Celery asks it.
func TestSolar(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		event               string
		latitude, longitude float64
		from, want          string
	}{
		{"sunrise", 52.52, 13.405, "2026-06-21 00:00:00", "2026-06-21 02:43:08"},
		{"solar_noon", 52.52, 13.405, "2026-06-21 00:00:00", "2026-06-21 11:08:11"},
		{"sunset", 52.52, 13.405, "2026-06-21 00:00:00", "2026-06-21 19:33:14"},
		{"dawn_nautical", 52.52, 13.405, "2026-06-21 00:00:00", "2026-06-21 00:29:24"},
		{"sunrise", -37.81753, 144.96715, "2026-06-21 00:00:00", "2026-06-21 21:35:51"},
		{"dawn_astronomical", -37.81753, 144.96715, "2026-06-21 00:00:00", "2026-06-21 20:01:24"},
	} {
		s, err := NewSolar(tt.event, tt.latitude, tt.longitude)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := s.Next(at(t, tt.from)), at(t, tt.want); got.Sub(want).Abs() > 10*time.Second {
			t.Errorf("%v: %v, want %v", s, got, want)
		}
	}
}

// TestSolarYear wants each event of a place once a day, in its order.
func TestSolarYear(t *testing.T) {
	t.Parallel()
	for _, longitude := range []float64{-180, 13.405} {
		events := make([]*Solar, len(solarEvents))
		for i, e := range solarEvents {
			events[i], _ = NewSolar(e.name, 40, longitude)
		}
		now := at(t, "2026-01-01 00:00:00")
		for i := range events { // to the first dawn
			if i == 0 {
				now = events[0].Next(now).Add(-time.Second)
			}
		}
		for day := range 365 {
			for _, s := range events {
				next := s.Next(now)
				if next.Sub(now) > 12*time.Hour || !next.After(now) {
					t.Fatalf("longitude %v, day %d: %v comes at %v after %v", longitude, day, s, next, now)
				}
				now = next
			}
		}
	}
}

// TestPolar: no sunrise in Tromsø's summer and winter, and then there is one again; none at a pole within any day.
func TestPolar(t *testing.T) {
	t.Parallel()
	sunrise, err := NewSolar("sunrise", 69.65, 18.96)
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]time.Month{"2026-06-01 00:00:00": time.July, "2026-12-10 00:00:00": time.January} {
		if got := sunrise.Next(at(t, from)); got.Month() != want {
			t.Errorf("after %s: %v", from, got)
		}
	}
	for _, latitude := range []float64{-90, 90} {
		for _, e := range solarEvents {
			s, err := NewSolar(e.name, latitude, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Next(at(t, "2026-01-01 00:00:00")); !got.IsZero() && !got.After(at(t, "2026-01-01 00:00:00")) {
				t.Errorf("%v: %v", s, got)
			}
		}
	}
}

func TestSolarRefused(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]Solar{
		"event":     {event: solarEvent{name: "noon"}},
		"latitude":  {event: solarEvents[0], latitude: 91},
		"longitude": {event: solarEvents[0], longitude: math.NaN()},
	} {
		if _, err := NewSolar(s.event.name, s.latitude, s.longitude); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %v", &s, err)
		}
	}
}
