package value

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"sync"

	"github.com/google/uuid"
)

// Unmarshaler is the other side of Marshaler: a type that reads a canonical value itself. It must not keep or change
// what it is given without copying.
type Unmarshaler interface{ UnmarshalValue(v any) error }

// Assign stores the canonical value src in the variable dst points to. It is AssignerFor for one use.
func Assign(dst, src any) error {
	p := reflect.ValueOf(dst)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return fmt.Errorf("assign needs a pointer that is not nil, got %T", dst)
	}
	assign, err := AssignerFor(p.Type().Elem())
	if err != nil {
		return err
	}
	return assign(p.Elem(), src)
}

// AssignerFor returns a function that stores canonical values in settable variables of type t. All decisions about t
// are taken here, once, so that the function itself is cheap; functions are cached and safe for concurrent use. An
// error names a type that no value can be stored in, such as a channel.
//
// Conversions are strict, because a value of the wrong type is a mistake of the caller that he should hear of:
// integers take only int and check the range; floats take int too; bool only bool. A struct takes a dict, ignores
// unknown keys and leaves the fields of missing ones alone. None goes into pointers, slices, maps and any, and is
// refused by everything else. time.Time takes a datetime, one without zone being UTC, and ISO text, as Celery 5.2
// writes it; LocalTime, Date, TimeOfDay, Decimal and UUID take their text as well. time.Duration takes seconds.
// Types with UnmarshalValue, UnmarshalJSON, UnmarshalText or Scan (sql.Null*) are asked, in this order.
//
// What is stored may share bytes, and under any whole containers, with src. Errors are *TypeError. A variable may be
// changed in part when an error is returned.
func AssignerFor(t reflect.Type) (func(dst reflect.Value, src any) error, error) {
	if a, ok := assigners.Load(t); ok {
		return a.(assigner), nil
	}
	b := assignerBuilder{}
	a, err := b.build(t)
	if err != nil {
		return nil, err
	}
	assigners.Store(t, a)
	return a, nil
}

type assigner = func(dst reflect.Value, src any) error

var assigners sync.Map // reflect.Type to assigner

// assignerBuilder holds the plans under construction, so that a type may contain itself.
type assignerBuilder map[reflect.Type]*assigner

func (b assignerBuilder) build(t reflect.Type) (assigner, error) {
	if open, ok := b[t]; ok {
		return func(dst reflect.Value, src any) error { return (*open)(dst, src) }, nil
	}
	plan := new(assigner)
	b[t] = plan
	a, err := b.plan(t)
	*plan = a
	return a, err
}

func (b assignerBuilder) plan(t reflect.Type) (assigner, error) {
	if a := knownAssigner(t); a != nil {
		return a, nil
	}
	if a := methodAssigner(t); a != nil {
		return a, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return assignBool, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return assignInt, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return assignUint, nil
	case reflect.Float32, reflect.Float64:
		return assignFloat, nil
	case reflect.String:
		return assignString, nil
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return assignAny, nil
		}
	case reflect.Pointer:
		return b.pointer(t)
	case reflect.Slice:
		return b.slice(t)
	case reflect.Array:
		return b.array(t)
	case reflect.Map:
		return b.dict(t)
	case reflect.Struct:
		return b.structure(t)
	}
	return nil, fmt.Errorf("no value can be stored in a %s", t)
}

func assignBool(dst reflect.Value, src any) error {
	v, ok := src.(bool)
	if !ok {
		return mismatch("bool", src)
	}
	dst.SetBool(v)
	return nil
}

func assignInt(dst reflect.Value, src any) error {
	switch v := src.(type) {
	case int64:
		if dst.OverflowInt(v) {
			return mismatch(dst.Kind().String(), src)
		}
		dst.SetInt(v)
		return nil
	case int:
		return assignInt(dst, int64(v))
	case *big.Int:
		return mismatch(dst.Kind().String(), src)
	}
	return mismatch("int", src)
}

func assignUint(dst reflect.Value, src any) error {
	var u uint64
	switch v := src.(type) {
	case int64:
		u = uint64(v)
		if v < 0 {
			return mismatch(dst.Kind().String(), src)
		}
	case int:
		return assignUint(dst, int64(v))
	case *big.Int:
		if u = v.Uint64(); !v.IsUint64() {
			return mismatch(dst.Kind().String(), src)
		}
	default:
		return mismatch("int", src)
	}
	if dst.OverflowUint(u) {
		return mismatch(dst.Kind().String(), src)
	}
	dst.SetUint(u)
	return nil
}

func assignFloat(dst reflect.Value, src any) error {
	var f float64
	switch v := src.(type) {
	case float64:
		f = v
	case int64:
		f = float64(v)
	case int:
		f = float64(v)
	case *big.Int:
		f, _ = v.Float64()
		if math.IsInf(f, 0) { // Python: int too large to convert to float
			return mismatch("float", src)
		}
	default:
		return mismatch("float", src)
	}
	if dst.OverflowFloat(f) {
		return mismatch(dst.Kind().String(), src)
	}
	dst.SetFloat(f)
	return nil
}

func assignString(dst reflect.Value, src any) error {
	v, ok := src.(string)
	if !ok {
		return mismatch("str", src)
	}
	dst.SetString(v)
	return nil
}

func assignAny(dst reflect.Value, src any) error {
	if src == nil {
		dst.SetZero()
	} else {
		dst.Set(reflect.ValueOf(src))
	}
	return nil
}

func (b assignerBuilder) pointer(t reflect.Type) (assigner, error) {
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(dst reflect.Value, src any) error {
		if src == nil {
			dst.SetZero()
			return nil
		}
		if dst.IsNil() {
			dst.Set(reflect.New(t.Elem()))
		}
		return elem(dst.Elem(), src)
	}, nil
}

func assignBytes(dst reflect.Value, src any) error {
	switch v := src.(type) {
	case []byte:
		dst.SetBytes(v)
	case nil:
		dst.SetZero()
	default:
		return mismatch("bytes", src)
	}
	return nil
}

func (b assignerBuilder) slice(t reflect.Type) (assigner, error) {
	if t.Elem().Kind() == reflect.Uint8 {
		return assignBytes, nil
	}
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(dst reflect.Value, src any) error {
		if src == nil {
			dst.SetZero()
			return nil
		}
		list, err := listOf(src)
		if err != nil {
			return err
		}
		out := reflect.MakeSlice(t, len(list), len(list))
		for i, v := range list {
			if err := elem(out.Index(i), v); err != nil {
				return withIndex(err, i)
			}
		}
		dst.Set(out)
		return nil
	}, nil
}

// listOf returns src as a list; a Go slice that is not canonical yet is converted.
func listOf(src any) ([]any, error) {
	if list, ok := src.([]any); ok {
		return list, nil
	}
	if kind := reflect.ValueOf(src).Kind(); (kind == reflect.Slice || kind == reflect.Array) && PythonType(src) == "" {
		if canonical, err := Of(src); err == nil {
			if list, ok := canonical.([]any); ok {
				return list, nil
			}
		}
	}
	return nil, mismatch("list", src)
}

func (b assignerBuilder) array(t reflect.Type) (assigner, error) {
	n := t.Len()
	want := "list of " + strconv.Itoa(n)
	isBytes := t.Elem().Kind() == reflect.Uint8
	if isBytes {
		want = strconv.Itoa(n) + " bytes"
	}
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(dst reflect.Value, src any) error {
		if data, ok := bytesFor(n, src); isBytes && ok {
			if len(data) != n {
				return mismatch(want, src)
			}
			for i, c := range data {
				dst.Index(i).SetUint(uint64(c))
			}
			return nil
		}
		list, err := listOf(src)
		if err != nil || len(list) != n {
			return mismatch(want, src)
		}
		for i, v := range list {
			if err := elem(dst.Index(i), v); err != nil {
				return withIndex(err, i)
			}
		}
		return nil
	}, nil
}

// bytesFor returns the bytes to fill an array of n: bytes, or a UUID when n is 16.
func bytesFor(n int, src any) (data []byte, ok bool) {
	switch v := src.(type) {
	case []byte:
		return v, true
	case uuid.UUID:
		return v[:], n == len(v)
	case string:
		if id, err := uuid.Parse(v); err == nil && n == len(id) {
			return id[:], true
		}
	}
	return nil, false
}

func (b assignerBuilder) dict(t reflect.Type) (assigner, error) {
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	setKey, err := keyAssigner(t.Key())
	if err != nil {
		return nil, err
	}
	return func(dst reflect.Value, src any) error {
		if src == nil {
			dst.SetZero()
			return nil
		}
		dict, err := dictOf(src)
		if err != nil {
			return err
		}
		out := reflect.MakeMapWithSize(t, len(dict))
		for key, v := range dict {
			k := reflect.New(t.Key()).Elem()
			if err := setKey(k, key); err != nil {
				return WithPath(err, key)
			}
			item := reflect.New(t.Elem()).Elem()
			if err := elem(item, v); err != nil {
				return WithPath(err, key)
			}
			out.SetMapIndex(k, item)
		}
		dst.Set(out)
		return nil
	}, nil
}

func dictOf(src any) (map[string]any, error) {
	if dict, ok := src.(map[string]any); ok {
		return dict, nil
	}
	if src != nil && PythonType(src) == "" {
		if canonical, err := Of(src); err == nil {
			if dict, ok := canonical.(map[string]any); ok {
				return dict, nil
			}
		}
	}
	return nil, mismatch("dict", src)
}

// keyAssigner reads the text of a dict key back into what it was before JSON made it text.
func keyAssigner(t reflect.Type) (func(dst reflect.Value, key string) error, error) {
	if reflect.PointerTo(t).Implements(textUnmarshalerType) {
		return func(dst reflect.Value, key string) error {
			err := dst.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(key))
			return failed(t.String(), key, err)
		}, nil
	}
	switch t.Kind() {
	case reflect.String:
		return func(dst reflect.Value, key string) error { dst.SetString(key); return nil }, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(dst reflect.Value, key string) error {
			n, err := strconv.ParseInt(key, 10, t.Bits())
			dst.SetInt(n)
			return failed(t.Kind().String(), key, errors.Unwrap(err))
		}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return func(dst reflect.Value, key string) error {
			n, err := strconv.ParseUint(key, 10, t.Bits())
			dst.SetUint(n)
			return failed(t.Kind().String(), key, errors.Unwrap(err))
		}, nil
	case reflect.Interface:
		if t.NumMethod() == 0 {
			return func(dst reflect.Value, key string) error { dst.Set(reflect.ValueOf(key)); return nil }, nil
		}
	}
	return nil, fmt.Errorf("no dict can be stored in a map with keys of %s", t)
}

// failed turns the error of a user's or the library's parser into a TypeError.
func failed(want string, src any, err error) error {
	if err == nil {
		return nil
	}
	return &TypeError{Want: want, Got: describe(src), Err: err}
}

// slot is one field of a struct with its assigner.
type slot struct {
	Field
	assign assigner
}

func (b assignerBuilder) structure(t reflect.Type) (assigner, error) {
	fields, err := Fields(t)
	if err != nil {
		return nil, err
	}
	slots := make([]slot, len(fields))
	for i, f := range fields {
		a, err := b.build(f.Type)
		if err != nil {
			return nil, fmt.Errorf("%s: field %s: %w", t, f.Name, err)
		}
		slots[i] = slot{f, a}
	}
	return func(dst reflect.Value, src any) error {
		dict, err := dictOf(src)
		if err != nil {
			return err
		}
		for i := range slots {
			s := &slots[i]
			v, ok := dict[s.Name]
			if !ok {
				continue
			}
			if err := s.assign(s.Settable(dst), v); err != nil {
				return WithPath(err, s.Name)
			}
		}
		return nil
	}, nil
}

// Settable returns the field within v, an addressable struct, and makes the embedded pointers on the way to it.
func (f *Field) Settable(v reflect.Value) reflect.Value {
	if len(f.Index) == 1 {
		return v.Field(f.Index[0])
	}
	for i, n := range f.Index {
		if i > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(n)
	}
	return v
}

// knownAssigner returns the assigner of a type of this package or of the standard library.
func knownAssigner(t reflect.Type) assigner {
	switch t {
	case timeType:
		return into("datetime", toTime)
	case localTimeType:
		return into("datetime", toLocalTime)
	case dateType:
		return into("date", toDate)
	case timeOfDayType:
		return into("time", toTimeOfDay)
	case durationType:
		return into("int or float of seconds", toDuration)
	case decimalType:
		return into("Decimal", toDecimal)
	case uuidType:
		return into("UUID", toUUID)
	case bigType:
		return func(dst reflect.Value, src any) error {
			b, err := toBig(src)
			if err == nil {
				dst.Addr().Interface().(*big.Int).Set(b)
			}
			return orMismatch(err, "int", src)
		}
	case bigPtrType:
		return func(dst reflect.Value, src any) error {
			if src == nil {
				dst.SetZero()
				return nil
			}
			b, err := toBig(src)
			if err == nil {
				dst.Set(reflect.ValueOf(new(big.Int).Set(b)))
			}
			return orMismatch(err, "int", src)
		}
	case rawType:
		return into("JSON", toRaw)
	}
	return nil
}

// errType is what the conversions below return for a value of a type they do not take.
var errType = errors.New("wrong type")

// into makes an assigner of a conversion.
func into[T any](want string, convert func(src any) (T, error)) assigner {
	return func(dst reflect.Value, src any) error {
		v, err := convert(src)
		if err != nil {
			return orMismatch(err, want, src)
		}
		*dst.Addr().Interface().(*T) = v
		return nil
	}
}

func orMismatch(err error, want string, src any) error {
	if errors.Is(err, errType) {
		return mismatch(want, src)
	}
	return failed(want, src, err)
}
