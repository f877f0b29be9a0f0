package protocol

import (
	"math"
	"strconv"
)

// appendSeconds appends a time limit: null for none, and without a fraction where there is none, as Python writes the
// integers its users give.
func appendSeconds(dst []byte, seconds float64) []byte {
	switch {
	case seconds <= 0 || math.IsNaN(seconds) || math.IsInf(seconds, 0):
		return append(dst, "null"...)
	case seconds == math.Trunc(seconds) && seconds < 1<<53:
		return strconv.AppendInt(dst, int64(seconds), 10)
	}
	return strconv.AppendFloat(dst, seconds, 'g', -1, 64)
}
