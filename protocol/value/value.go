// Package value is Python's data model in Go: what a task argument or a result is, whatever serializer carried it.
//
// A canonical value is one of
//
//	nil              None
//	bool             bool
//	int64, *big.Int  int (big only when it does not fit 64 bits)
//	float64          float, NaN and infinities included
//	string           str; a lone surrogate is kept as its three WTF-8 bytes, so that it survives a round trip
//	[]byte           bytes
//	[]any            list, tuple
//	map[string]any   dict
//	time.Time        datetime with a time zone
//	LocalTime        datetime without one
//	Date, TimeOfDay  date, time
//	Decimal          decimal.Decimal
//	uuid.UUID        uuid.UUID
//
// Serializers decode into canonical values and encode from them; Of turns any Go value into a canonical one and
// Assign stores a canonical one into any Go variable. So every serializer treats a user's types alike.
package value

import (
	"time"
)

// Date is Python's datetime.date.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// LocalTime is a Python datetime without a time zone: a wall clock reading, to the microsecond. The embedded Time
// carries the reading as if it were UTC; its location means nothing.
type LocalTime struct{ time.Time }

// TimeOfDay is Python's datetime.time without a zone, as the time since midnight, to the microsecond.
type TimeOfDay time.Duration

// Decimal is Python's decimal.Decimal in its text form ("1.50"): digits are kept as sent and never pass through a
// float.
type Decimal string
