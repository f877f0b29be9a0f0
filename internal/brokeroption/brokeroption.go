// Package brokeroption reads the options of broker and backend drivers: values as configuration files, URL queries and Go
// callers write them, and Python's ssl settings.
package brokeroption

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// ReadText sets *dst to a string.
func ReadText(dst *string, v any) error {
	s, ok := v.(string)
	if !ok {
		return fmt.Errorf("%T is not a string", v)
	}
	*dst = s
	return nil
}

// ReadBool sets *dst to a bool, which a query writes as true, yes, on, 1 or their opposites.
func ReadBool(dst *bool, v any) error {
	switch v := v.(type) {
	case bool:
		*dst = v
		return nil
	case string: // from a query or an environment variable
		switch strings.ToLower(v) {
		case "true", "yes", "on", "1":
			*dst = true
			return nil
		case "false", "no", "off", "0":
			*dst = false
			return nil
		}
	}
	return fmt.Errorf("%v is not a bool", v)
}

// ReadCount sets *dst to a positive whole number.
func ReadCount(dst *int, v any) error {
	n, ok := number(v)
	if !ok || n < 1 || n > math.MaxInt32 || n != math.Trunc(n) {
		return fmt.Errorf("%v is not a positive whole number", v)
	}
	*dst = int(n)
	return nil
}

// ReadSeconds sets *dst to a positive number of seconds, or a time.Duration.
func ReadSeconds(dst *time.Duration, v any) error {
	if d, ok := v.(time.Duration); ok && d > 0 {
		*dst = d
		return nil
	}
	n, ok := number(v)
	if !ok || !(n > 0) || n > 1e6 {
		return fmt.Errorf("%v is not a positive number of seconds", v)
	}
	*dst = time.Duration(n * float64(time.Second))
	return nil
}

// number reads what configuration files and Go callers write for a number.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int32:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
