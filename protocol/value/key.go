package value

import (
	"encoding"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
)

// keyText gives the text Python's JSON writes for a dict key.
func keyText(key reflect.Value) (string, error) {
	if key.Kind() == reflect.Interface {
		key = key.Elem()
	}
	if !key.IsValid() {
		return "null", nil
	}
	if key.Kind() == reflect.String && !key.Type().Implements(textMarshalerType) {
		return key.String(), nil
	}
	if m, ok := key.Interface().(encoding.TextMarshaler); ok {
		text, err := m.MarshalText()
		return string(text), err
	}
	switch key.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.FormatInt(key.Int(), 10), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return strconv.FormatUint(key.Uint(), 10), nil
	case reflect.Bool, reflect.Float32, reflect.Float64:
		var canonical any = key.Kind() == reflect.Bool && key.Bool()
		if key.CanFloat() {
			canonical = key.Float()
		}
		return KeyText(canonical)
	}
	return "", &TypeError{Want: "str or int as key of a dict", Got: key.Type().String()}
}

// KeyText gives the text that Python's JSON writes for a dict key: numbers as digits, True as "true", None as "null".
// Dates, decimals and UUIDs are their text. Other canonical values cannot be a key.
func KeyText(key any) (string, error) {
	switch key := key.(type) {
	case string:
		return key, nil
	case nil:
		return "null", nil
	case bool:
		return strconv.FormatBool(key), nil
	case int64:
		return strconv.FormatInt(key, 10), nil
	case *big.Int:
		if digits := key.Text(10); len(digits) <= MaxDigits {
			return digits, nil
		}
		return "", &TypeError{Want: "str or int as key of a dict", Got: "int of too many digits"}
	case float64:
		switch {
		case math.IsNaN(key):
			return "NaN", nil
		case math.IsInf(key, 0):
			return strings.TrimPrefix(strconv.FormatFloat(key, 'f', -1, 64)+"inity", "+"), nil
		}
		return string(AppendFloat(nil, key)), nil
	}
	if text, ok := AppendText(nil, key); ok {
		return string(text), nil
	}
	return "", mismatch("str or int as key of a dict", key)
}
