package value

import (
	"encoding"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"time"
)

var (
	unmarshalerType     = reflect.TypeFor[Unmarshaler]()
	jsonUnmarshalerType = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshalerType = reflect.TypeFor[encoding.TextUnmarshaler]()
	scannerType         = reflect.TypeFor[scanner]()
)

// scanner is sql.Scanner, named here so that package database/sql is not linked into every binary.
type scanner interface{ Scan(src any) error }

// methodAssigner returns the assigner of a type whose pointer has one of the known methods.
func methodAssigner(t reflect.Type) assigner {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Interface { // the pointer's own plan comes first
		return nil
	}
	p := reflect.PointerTo(t)
	var call func(method any, src any) error
	switch {
	case p.Implements(unmarshalerType):
		call = func(m, src any) error { return m.(Unmarshaler).UnmarshalValue(src) }
	case p.Implements(jsonUnmarshalerType):
		call = func(m, src any) error {
			text, err := json.Marshal(src)
			if err != nil {
				return err
			}
			return m.(json.Unmarshaler).UnmarshalJSON(text)
		}
	case p.Implements(textUnmarshalerType):
		call = func(m, src any) error {
			text, ok := textOf(src)
			if !ok {
				return errType
			}
			return m.(encoding.TextUnmarshaler).UnmarshalText(text)
		}
	case p.Implements(scannerType):
		call = func(m, src any) error {
			column, err := columnOf(src)
			if err != nil {
				return err
			}
			return m.(scanner).Scan(column)
		}
	default:
		return nil
	}
	want := t.String()
	return func(dst reflect.Value, src any) error {
		err := call(dst.Addr().Interface(), src)
		var te *TypeError
		if errors.As(err, &te) { // a method that uses Assign knows better where it went wrong
			return err
		}
		return orMismatch(err, want, src)
	}
}

// textOf returns the text of a str or of a value that has a text form.
func textOf(src any) ([]byte, bool) {
	if s, ok := src.(string); ok {
		return []byte(s), true
	}
	return AppendText(nil, src)
}

// columnOf returns src as a database driver would hand it to a Scanner.
func columnOf(src any) (any, error) {
	switch v := src.(type) {
	case nil, int64, float64, bool, []byte, string, time.Time:
		return v, nil
	case LocalTime:
		return toTime(v)
	case *big.Int:
		return v.String(), nil
	}
	if text, ok := AppendText(nil, src); ok {
		return string(text), nil
	}
	return nil, errType
}
