package monitor

import (
	"math"

	"github.com/gelery/gelery/protocol"
)

// wholeField is a field that is a whole number, 0 for any other.
func wholeField(e *protocol.Event, name string) int64 { return wholeValue(e.Field(name)) }

func wholeValue(v any) int64 {
	n, ok := v.(int64)
	if !ok || n < 0 || n > math.MaxInt32 {
		return 0
	}
	return n
}

// numberValue is a number that is finite and not negative.
func numberValue(v any) (float64, bool) {
	var f float64
	switch v := v.(type) {
	case int64:
		f = float64(v)
	case float64:
		f = v
	default:
		return 0, false
	}
	return f, f >= 0 && !math.IsInf(f, 0)
}
