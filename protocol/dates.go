package protocol

import (
	"time"

	"github.com/gelery/gelery/protocol/value"
)

// FormatTime writes a date as every Celery version reads it right: 2006-01-02T15:04:05.000000+00:00, in UTC, always
// with six fraction digits. What is below a microsecond is dropped.
func FormatTime(t time.Time) string { return value.FormatISO(t.UTC()) }

// ParseTime reads a date of a header or a result: no offset (which is UTC), Z, ±HH:MM or ±HHMM; zero to nine fraction
// digits, of which those beyond microseconds are dropped.
func ParseTime(s string) (time.Time, error) {
	t, _, err := value.ParseISO(s)
	return t, err
}
