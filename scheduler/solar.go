package scheduler

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Solar runs at an event of the sun: celery.schedules.solar.
type Solar struct {
	event               solarEvent
	latitude, longitude float64 // degrees, north and east are positive
}

// solarEvent is what the sun does.
type solarEvent struct {
	name     string
	altitude float64 // of the sun's centre in degrees, or of its upper limb
	limb     bool
	rising   bool
	noon     bool
}

var solarEvents = []solarEvent{
	{name: "dawn_astronomical", altitude: -18, rising: true},
	{name: "dawn_nautical", altitude: -12, rising: true},
	{name: "dawn_civil", altitude: -6, rising: true},
	{name: "sunrise", altitude: horizon, limb: true, rising: true},
	{name: "solar_noon", noon: true},
	{name: "sunset", altitude: horizon, limb: true},
	{name: "dusk_civil", altitude: -6},
	{name: "dusk_nautical", altitude: -12},
	{name: "dusk_astronomical", altitude: -18},
}

// horizon is where the upper limb stands at sunrise: the air lifts what is on the horizon by 34 minutes of arc.
const horizon = -34.0 / 60

// NewSolar makes a schedule of an event, by its name in Celery, at a place: degrees, north and east are positive.
func NewSolar(event string, latitude, longitude float64) (*Solar, error) {
	i := slices.IndexFunc(solarEvents, func(e solarEvent) bool { return e.name == event })
	if i < 0 {
		names := make([]string, len(solarEvents))
		for i, e := range solarEvents {
			names[i] = e.name
		}
		return nil, fmt.Errorf("event %.40q: there is none of this name; those there are: %s", event, strings.Join(names, ", "))
	}
	if !(latitude >= -90 && latitude <= 90) {
		return nil, errors.New("latitude: it is a number from -90 to 90")
	}
	if !(longitude >= -180 && longitude <= 180) {
		return nil, errors.New("longitude: it is a number from -180 to 180")
	}
	return &Solar{event: solarEvents[i], latitude: latitude, longitude: longitude}, nil
}

// solarDays is how far it is looked ahead: where the sun does not rise for half a year, it does then.
const solarDays = 370

// Event is the event's name, and where it is looked at: degrees, north and east are positive.
func (s *Solar) Event() (name string, latitude, longitude float64) {
	return s.event.name, s.latitude, s.longitude
}

// Next is the first such event after t, to the second. In the polar day and night it may be months away; it is the zero time
// where the event does not come within a year, as at a pole.
func (s *Solar) Next(t time.Time) time.Time {
	day := 24 * time.Hour
	for noon := s.noonNear(t.Add(-day)); noon.Before(t.Add(solarDays * day)); noon = s.noonNear(noon.Add(day)) {
		at, ok := noon, true
		if !s.event.noon {
			at, ok = s.crossing(noon)
		}
		if at = at.Round(time.Second); ok && at.After(t) {
			return at.In(t.Location())
		}
	}
	return time.Time{}
}

// crossing is when the sun crosses the event's altitude in the half day before a noon, or in the one behind it.
func (s *Solar) crossing(noon time.Time) (time.Time, bool) {
	low, high := noon.Add(-12*time.Hour), noon
	if !s.event.rising {
		low = noon.Add(12 * time.Hour)
	}
	if s.above(low) || !s.above(high) {
		return time.Time{}, false
	}
	for range 20 { // to a tenth of a second
		middle := low.Add(high.Sub(low) / 2)
		if s.above(middle) {
			high = middle
		} else {
			low = middle
		}
	}
	return high, true
}

// above tells whether the sun is above the event's altitude.
func (s *Solar) above(t time.Time) bool {
	sun := sunAt(t)
	hourAngle := radians(sun.sidereal+s.longitude) - sun.rightAscension
	latitude := radians(s.latitude)
	altitude := math.Asin(math.Sin(latitude)*math.Sin(sun.declination) + math.Cos(latitude)*math.Cos(sun.declination)*math.Cos(hourAngle))
	if s.event.limb {
		altitude += sun.radius
	}
	return altitude > radians(s.event.altitude)
}

// noonNear is the passage of the sun over the meridian that is nearest to t.
func (s *Solar) noonNear(t time.Time) time.Time {
	const solarDay = 24 * time.Hour
	for range 4 {
		sun := sunAt(t)
		hourAngle := math.Remainder(radians(sun.sidereal+s.longitude)-sun.rightAscension, 2*math.Pi)
		t = t.Add(-time.Duration(hourAngle / (2 * math.Pi) * float64(solarDay)))
	}
	return t
}

// sun is where the sun stands.
type sun struct {
	declination, rightAscension float64 // radians
	radius                      float64 // of the disc, radians
	sidereal                    float64 // time at Greenwich, degrees
}

func radians(degrees float64) float64 { return degrees * math.Pi / 180 }

// sunAt is the sun's place by its mean elements, to a hundredth of a degree between 1900 and 2100 (J. Meeus, Astronomical
// Algorithms, chapters 12 and 25).
func sunAt(t time.Time) sun {
	days := float64(t.UnixMilli())/86_400_000 - 10957.5 // since 1 January 2000, noon
	c := (days + 69.2/86400) / 36525                    // centuries of uniform time, which is ahead of the clock
	anomaly := radians(357.52911 + 35999.05029*c - 0.0001537*c*c)
	centre := (1.914602-0.004817*c-0.000014*c*c)*math.Sin(anomaly) + (0.019993-0.000101*c)*math.Sin(2*anomaly) + 0.000289*math.Sin(3*anomaly)
	node := radians(125.04 - 1934.136*c)
	longitude := radians(280.46646 + 36000.76983*c + 0.0003032*c*c + centre - 0.00569 - 0.00478*math.Sin(node))
	obliquity := radians(23.439291 - 0.0130042*c + 0.00256*math.Cos(node))
	eccentricity := 0.016708634 - 0.000042037*c
	distance := 1.000001018 * (1 - eccentricity*eccentricity) / (1 + eccentricity*math.Cos(anomaly+radians(centre)))
	return sun{
		declination:    math.Asin(math.Sin(obliquity) * math.Sin(longitude)),
		rightAscension: math.Atan2(math.Cos(obliquity)*math.Sin(longitude), math.Cos(longitude)),
		radius:         radians(959.63 / 3600 / distance),
		sidereal:       math.Mod(280.46061837+360.98564736629*days-0.00478*math.Sin(node)*math.Cos(obliquity), 360),
	}
}

func (s *Solar) String() string {
	return fmt.Sprintf("<solar: %s at latitude %v, longitude: %v>", s.event.name, s.latitude, s.longitude)
}
