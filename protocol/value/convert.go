package value

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// The conversions of this file return errType for a value of a type they do not take, and any other error for one of
// the right type with the wrong content.

func toTime(src any) (time.Time, error) {
	switch v := src.(type) {
	case time.Time:
		return v, nil
	case LocalTime:
		return time.Date(v.Year(), v.Month(), v.Day(), v.Hour(), v.Minute(), v.Second(), v.Nanosecond(), time.UTC), nil
	case string:
		t, _, err := ParseISO(v)
		return t, err
	}
	return time.Time{}, errType
}

func toLocalTime(src any) (LocalTime, error) {
	switch v := src.(type) {
	case LocalTime:
		return v, nil
	case string:
		return ParseLocalTime(v)
	}
	return LocalTime{}, errType
}

func toDate(src any) (Date, error) {
	switch v := src.(type) {
	case Date:
		return v, nil
	case string:
		return ParseDate(v)
	}
	return Date{}, errType
}

func toTimeOfDay(src any) (TimeOfDay, error) {
	switch v := src.(type) {
	case TimeOfDay:
		return v, nil
	case string:
		return ParseTimeOfDay(v)
	}
	return 0, errType
}

func toDuration(src any) (time.Duration, error) {
	switch v := src.(type) {
	case int64:
		if v > math.MaxInt64/int64(time.Second) || v < math.MinInt64/int64(time.Second) {
			return 0, errors.New("longer than a time.Duration holds")
		}
		return time.Duration(v) * time.Second, nil
	case float64:
		// Whole seconds and the rest apart: above a hundred days a float holds seconds better than nanoseconds.
		whole, rest := math.Modf(v)
		if !(math.Abs(whole) < float64(math.MaxInt64/int64(time.Second))) { // nor NaN
			return 0, errors.New("longer than a time.Duration holds")
		}
		return time.Duration(whole)*time.Second + time.Duration(math.Round(rest*1e9)), nil
	}
	return 0, errType
}

func toDecimal(src any) (Decimal, error) {
	switch v := src.(type) {
	case Decimal:
		return v, nil
	case string:
		return ParseDecimal(v)
	case int64:
		return Decimal(strconv.FormatInt(v, 10)), nil
	case *big.Int:
		return Decimal(v.String()), nil
	}
	return "", errType
}

// ParseDecimal checks that s is a number as decimal.Decimal reads it: digits with a point and an exponent, NaN or
// Infinity. The text is kept as it is.
func ParseDecimal(s string) (Decimal, error) {
	rest := s
	if rest != "" && (rest[0] == '+' || rest[0] == '-') {
		rest = rest[1:]
	}
	switch rest {
	case "NaN", "sNaN", "Infinity", "Inf":
		return Decimal(s), nil
	}
	digits, points, i := 0, 0, 0
	for ; i < len(rest) && (rest[i]-'0' <= 9 || rest[i] == '.'); i++ {
		if rest[i] == '.' {
			points++
		} else {
			digits++
		}
	}
	if exponent := rest[i:]; exponent != "" {
		_, err := strconv.ParseInt(exponent[1:], 10, 64)
		if err != nil || exponent[0] != 'e' && exponent[0] != 'E' {
			digits = 0
		}
	}
	if digits == 0 || points > 1 {
		return "", fmt.Errorf("invalid decimal %q", clip(s))
	}
	return Decimal(s), nil
}

func toUUID(src any) (uuid.UUID, error) {
	switch v := src.(type) {
	case uuid.UUID:
		return v, nil
	case string:
		return uuid.Parse(v)
	case []byte:
		if len(v) == 16 {
			return uuid.UUID(v), nil
		}
	}
	return uuid.UUID{}, errType
}

func toBig(src any) (*big.Int, error) {
	switch v := src.(type) {
	case int64:
		return big.NewInt(v), nil
	case *big.Int:
		return v, nil
	}
	return nil, errType
}

func toRaw(src any) (json.RawMessage, error) { return json.Marshal(src) }
