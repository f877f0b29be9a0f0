package value

import (
	"bytes"
	"database/sql/driver"
	"encoding"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// MaxDepth is the number of nested containers a value may have to be sent. Python's own reader gives up near 1000.
const MaxDepth = 500

// Marshaler is Python's __json__ for every serializer: a type that says itself what it is on the wire. The value it
// returns may be any Go value that Of takes.
type Marshaler interface{ MarshalValue() (any, error) }

// Of returns v as a canonical value. It is a deep copy, except that bytes and big integers are shared with v.
//
// A struct becomes a dict (see Field), a nil slice an empty list, a nil map an empty dict, a nil pointer None. An
// array of bytes is bytes. time.Time is cut to microseconds, time.Duration is seconds as a float (Python's timedelta
// has no JSON form). Types with a MarshalValue, MarshalJSON, MarshalText or driver.Valuer method are what that method
// says, in this order. Keys of maps may be strings, integers, booleans, floats or text marshalers; they become text as
// in Python's JSON.
//
// A value that cannot be sent (a function, a channel, a complex number, a cycle) is a *TypeError.
func Of(v any) (any, error) { return of(v, 0) }

// of knows the common types by a switch and leaves the others to reflection.
func of(v any, depth int) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64, string, uuid.UUID, Decimal:
		return v, nil
	case int:
		return int64(v), nil
	case []byte:
		if v == nil {
			return []byte{}, nil
		}
		return v, nil
	case []any:
		return ofList(v, depth)
	case map[string]any:
		return ofDict(v, depth)
	case time.Time:
		return v.Truncate(time.Microsecond), CheckTime(v)
	case int8:
		return int64(v), nil
	case int16:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case uint8:
		return int64(v), nil
	case uint16:
		return int64(v), nil
	case uint32:
		return int64(v), nil
	case uint:
		return ofUint(uint64(v)), nil
	case uint64:
		return ofUint(v), nil
	case float32:
		return float64(v), nil
	case *big.Int:
		return ofBig(v), nil
	case []string:
		return ofSlice(v), nil
	case []int:
		list := make([]any, len(v))
		for i, n := range v {
			list[i] = int64(n)
		}
		return list, nil
	case map[string]string:
		dict := make(map[string]any, len(v))
		for key, s := range v {
			dict[key] = s
		}
		return dict, nil
	}
	return ofRare(v, depth)
}

// ofRare takes the types of this package and of the standard library that need a check or a conversion.
func ofRare(v any, depth int) (any, error) {
	switch v := v.(type) {
	case LocalTime:
		return LocalTime{v.Truncate(time.Microsecond)}, CheckTime(v.Time)
	case Date:
		if !v.Valid() {
			return nil, unsendable(reflect.TypeFor[Date](), errors.New("invalid date "+v.String()))
		}
		return v, nil
	case TimeOfDay:
		if !v.Valid() {
			return nil, unsendable(reflect.TypeFor[TimeOfDay](), errors.New("not a time within one day"))
		}
		return v - v%TimeOfDay(time.Microsecond), nil
	case time.Duration:
		return v.Seconds(), nil
	case json.Number:
		return ofNumber(string(v))
	case json.RawMessage:
		return ofJSON(v, depth)
	}
	rv := reflect.ValueOf(v)
	encode, err := encoderFor(rv.Type())
	if err != nil {
		return nil, err
	}
	return encode(rv, depth)
}

func ofUint(u uint64) any {
	if u > math.MaxInt64 {
		return new(big.Int).SetUint64(u)
	}
	return int64(u)
}

func ofBig(b *big.Int) any {
	if b == nil {
		return nil
	}
	if b.IsInt64() {
		return b.Int64()
	}
	return b
}

func ofSlice[T any](in []T) []any {
	list := make([]any, len(in))
	for i, v := range in {
		list[i] = v
	}
	return list
}

func ofList(in []any, depth int) (any, error) {
	if depth >= MaxDepth {
		return nil, &TypeError{Got: "list", Err: ErrDepth}
	}
	list := make([]any, len(in))
	for i, v := range in {
		item, err := of(v, depth+1)
		if err != nil {
			return nil, withIndex(err, i)
		}
		list[i] = item
	}
	return list, nil
}

func ofDict(in map[string]any, depth int) (any, error) {
	if depth >= MaxDepth {
		return nil, &TypeError{Got: "dict", Err: ErrDepth}
	}
	dict := make(map[string]any, len(in))
	for key, v := range in {
		item, err := of(v, depth+1)
		if err != nil {
			return nil, WithPath(err, key)
		}
		dict[key] = item
	}
	return dict, nil
}

// ofNumber reads JSON number text; an integer of any size stays one.
func ofNumber(text string) (any, error) {
	if !strings.ContainsAny(text, ".eEnN") {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, nil
		}
		if b, ok := new(big.Int).SetString(text, 10); ok && len(text) <= MaxDigits {
			return b, nil
		}
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return nil, unsendable(reflect.TypeFor[json.Number](), err)
	}
	return f, nil
}

// MaxDigits is the longest integer, in decimal digits, that Python reads or writes as text.
const MaxDigits = 4300

// ofJSON turns what a MarshalJSON method wrote into a canonical value.
func ofJSON(text []byte, depth int) (any, error) {
	if len(text) == 0 { // what encoding/json makes of a nil RawMessage
		return nil, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		return nil, unsendable(reflect.TypeFor[json.RawMessage](), err)
	}
	return of(v, depth)
}

// encoder turns a value of one type into a canonical one.
type encoder func(v reflect.Value, depth int) (any, error)

var encoders sync.Map // reflect.Type to encoder

// encoderFor returns the encoder of t. Plans are built once; two goroutines that meet may build the same one twice.
func encoderFor(t reflect.Type) (encoder, error) {
	if e, ok := encoders.Load(t); ok {
		return e.(encoder), nil
	}
	b := encoderBuilder{}
	e, err := b.build(t)
	if err != nil {
		return nil, err
	}
	encoders.Store(t, e)
	return e, nil
}

// encoderBuilder holds the plans under construction, so that a type may contain itself.
type encoderBuilder map[reflect.Type]*encoder

func (b encoderBuilder) build(t reflect.Type) (encoder, error) {
	if open, ok := b[t]; ok {
		return func(v reflect.Value, depth int) (any, error) { return (*open)(v, depth) }, nil
	}
	plan := new(encoder)
	b[t] = plan
	e, err := b.plan(t)
	*plan = e
	return e, err
}

func (b encoderBuilder) plan(t reflect.Type) (encoder, error) {
	if switchKnows(t) {
		return func(v reflect.Value, depth int) (any, error) { return of(v.Interface(), depth) }, nil
	}
	if e := methodEncoder(t); e != nil {
		return e, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return func(v reflect.Value, _ int) (any, error) { return v.Bool(), nil }, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return func(v reflect.Value, _ int) (any, error) { return v.Int(), nil }, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return func(v reflect.Value, _ int) (any, error) { return ofUint(v.Uint()), nil }, nil
	case reflect.Float32, reflect.Float64:
		return func(v reflect.Value, _ int) (any, error) { return v.Float(), nil }, nil
	case reflect.String:
		return func(v reflect.Value, _ int) (any, error) { return v.String(), nil }, nil
	case reflect.Interface:
		return func(v reflect.Value, depth int) (any, error) { return of(v.Interface(), depth) }, nil
	case reflect.Pointer:
		return b.pointer(t)
	case reflect.Slice, reflect.Array:
		return b.list(t)
	case reflect.Map:
		return b.dict(t)
	case reflect.Struct:
		return b.structure(t)
	}
	return nil, unsendable(t, nil)
}

// switchKnows reports whether of and ofRare name t in a case.
func switchKnows(t reflect.Type) bool {
	switch t {
	case timeType, localTimeType, dateType, timeOfDayType, durationType, decimalType, uuidType, bigPtrType,
		numberType, rawType:
		return true
	}
	return false
}

var (
	timeType      = reflect.TypeFor[time.Time]()
	localTimeType = reflect.TypeFor[LocalTime]()
	dateType      = reflect.TypeFor[Date]()
	timeOfDayType = reflect.TypeFor[TimeOfDay]()
	durationType  = reflect.TypeFor[time.Duration]()
	decimalType   = reflect.TypeFor[Decimal]()
	uuidType      = reflect.TypeFor[uuid.UUID]()
	bigType       = reflect.TypeFor[big.Int]()
	bigPtrType    = reflect.TypeFor[*big.Int]()
	numberType    = reflect.TypeFor[json.Number]()
	rawType       = reflect.TypeFor[json.RawMessage]()

	marshalerType     = reflect.TypeFor[Marshaler]()
	jsonMarshalerType = reflect.TypeFor[json.Marshaler]()
	textMarshalerType = reflect.TypeFor[encoding.TextMarshaler]()
	valuerType        = reflect.TypeFor[driver.Valuer]()
)

// isLeaf reports whether values of t speak for themselves, so that embedding one does not spread its fields.
func isLeaf(t reflect.Type) bool {
	return switchKnows(t) || t == bigType || methodEncoder(t) != nil || methodAssigner(t) != nil
}

// methodEncoder returns the encoder of a type that has one of the known methods, on itself or on its pointer.
func methodEncoder(t reflect.Type) encoder {
	if t == bigType {
		return func(v reflect.Value, _ int) (any, error) {
			b := new(big.Int)
			return ofBig(b.Set(addressed(v).Interface().(*big.Int))), nil
		}
	}
	if t.Kind() == reflect.Interface { // the dynamic type decides
		return nil
	}
	for _, known := range []struct {
		iface  reflect.Type
		encode func(method any, depth int) (any, error)
	}{
		{marshalerType, func(m any, depth int) (any, error) {
			v, err := m.(Marshaler).MarshalValue()
			if err != nil || depth >= MaxDepth {
				return nil, errors.Join(err, depthError(depth))
			}
			return of(v, depth+1)
		}},
		{jsonMarshalerType, func(m any, depth int) (any, error) {
			text, err := m.(json.Marshaler).MarshalJSON()
			if err != nil {
				return nil, err
			}
			return ofJSON(text, depth)
		}},
		{textMarshalerType, func(m any, _ int) (any, error) {
			text, err := m.(encoding.TextMarshaler).MarshalText()
			return string(text), err
		}},
		{valuerType, func(m any, depth int) (any, error) {
			v, err := m.(driver.Valuer).Value()
			if err != nil || depth >= MaxDepth {
				return nil, errors.Join(err, depthError(depth))
			}
			return of(v, depth+1)
		}},
	} {
		if t.Implements(known.iface) {
			return guarded(t, known.encode, func(v reflect.Value) any { return v.Interface() })
		}
		if t.Kind() != reflect.Pointer && reflect.PointerTo(t).Implements(known.iface) {
			return guarded(t, known.encode, func(v reflect.Value) any { return addressed(v).Interface() })
		}
	}
	return nil
}

func depthError(depth int) error {
	if depth >= MaxDepth {
		return ErrDepth
	}
	return nil
}

// guarded answers None for a nil pointer, as a method seldom expects one, and names the type in an error.
func guarded(t reflect.Type, encode func(any, int) (any, error), receiver func(reflect.Value) any) encoder {
	nilable := t.Kind() == reflect.Pointer || t.Kind() == reflect.Map || t.Kind() == reflect.Slice
	return func(v reflect.Value, depth int) (any, error) {
		if nilable && v.IsNil() && t.Kind() == reflect.Pointer {
			return nil, nil
		}
		out, err := encode(receiver(v), depth)
		var te *TypeError
		if err != nil && !errors.As(err, &te) {
			err = unsendable(t, err)
		}
		return out, err
	}
}

// addressed returns a pointer to v, or to a copy where v has no address.
func addressed(v reflect.Value) reflect.Value {
	if v.CanAddr() {
		return v.Addr()
	}
	p := reflect.New(v.Type())
	p.Elem().Set(v)
	return p
}

func (b encoderBuilder) pointer(t reflect.Type) (encoder, error) {
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(v reflect.Value, depth int) (any, error) {
		if v.IsNil() {
			return nil, nil
		}
		if depth >= MaxDepth { // a pointer that leads to itself
			return nil, unsendable(t, ErrDepth)
		}
		return elem(v.Elem(), depth+1)
	}, nil
}

func (b encoderBuilder) list(t reflect.Type) (encoder, error) {
	if t.Elem().Kind() == reflect.Uint8 && methodEncoder(t.Elem()) == nil {
		return func(v reflect.Value, _ int) (any, error) {
			if t.Kind() == reflect.Slice {
				return append([]byte{}, v.Bytes()...), nil
			}
			data := make([]byte, v.Len())
			for i := range data {
				data[i] = byte(v.Index(i).Uint())
			}
			return data, nil
		}, nil
	}
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	return func(v reflect.Value, depth int) (any, error) {
		if depth >= MaxDepth {
			return nil, unsendable(t, ErrDepth)
		}
		list := make([]any, v.Len())
		for i := range list {
			item, err := elem(v.Index(i), depth+1)
			if err != nil {
				return nil, withIndex(err, i)
			}
			list[i] = item
		}
		return list, nil
	}, nil
}

func (b encoderBuilder) dict(t reflect.Type) (encoder, error) {
	elem, err := b.build(t.Elem())
	if err != nil {
		return nil, err
	}
	switch t.Key().Kind() {
	case reflect.Chan, reflect.Complex64, reflect.Complex128:
		return nil, unsendable(t, nil)
	}
	return func(v reflect.Value, depth int) (any, error) {
		if depth >= MaxDepth {
			return nil, unsendable(t, ErrDepth)
		}
		dict := make(map[string]any, v.Len())
		for entries := v.MapRange(); entries.Next(); {
			key, err := keyText(entries.Key())
			if err != nil {
				return nil, err
			}
			item, err := elem(entries.Value(), depth+1)
			if err != nil {
				return nil, WithPath(err, key)
			}
			dict[key] = item
		}
		return dict, nil
	}, nil
}

// member is one field of a struct with its encoder.
type member struct {
	Field
	encode encoder
}

func (b encoderBuilder) structure(t reflect.Type) (encoder, error) {
	fields, err := Fields(t)
	if err != nil {
		return nil, unsendable(t, err)
	}
	members := make([]member, len(fields))
	for i, f := range fields {
		e, err := b.build(f.Type)
		if err != nil {
			return nil, WithPath(err, f.Name)
		}
		members[i] = member{f, e}
	}
	return func(v reflect.Value, depth int) (any, error) {
		if depth >= MaxDepth {
			return nil, unsendable(t, ErrDepth)
		}
		dict := make(map[string]any, len(members))
		for i := range members {
			m := &members[i]
			field, ok := fieldOf(v, &m.Field)
			if !ok || m.OmitEmpty && isEmpty(field) {
				continue
			}
			item, err := m.encode(field, depth+1)
			if err != nil {
				return nil, WithPath(err, m.Name)
			}
			dict[m.Name] = item
		}
		return dict, nil
	}, nil
}

// fieldOf follows the index; ok is false where an embedded pointer on the way is nil.
func fieldOf(v reflect.Value, f *Field) (field reflect.Value, ok bool) {
	if len(f.Index) == 1 {
		return v.Field(f.Index[0]), true
	}
	field, err := v.FieldByIndexErr(f.Index)
	return field, err == nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
		return v.Len() == 0
	}
	return v.IsZero()
}
