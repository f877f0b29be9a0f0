package serialization

import (
	"bytes"
	"errors"
	"fmt"
	"math/big"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	pickle "github.com/kisielk/og-rek"

	"github.com/gelery/gelery/protocol/value"
)

type pickleSerializer struct{}

// Pickle reads what Python's pickle wrote and never writes it. Nothing is executed: besides plain data it knows
// datetime, date, time, timedelta, Decimal, set and frozenset, and refuses every other class by its name.
var Pickle Serializer = pickleSerializer{}

func (pickleSerializer) Name() string            { return "pickle" }
func (pickleSerializer) ContentType() string     { return "application/x-python-serialize" }
func (pickleSerializer) ContentEncoding() string { return "binary" }

func (s pickleSerializer) Append([]byte, any) ([]byte, error) {
	return encoded(nil, s, errors.New("pickle is read-only"))
}

// Decode reads one pickle of up to 16 MiB.
func (s pickleSerializer) Decode(data []byte) (any, error) { return decodePickle(data, false) }

// DecodePickle is Pickle.Decode, but that a class it knows nothing of is no error where it is called as a function is: the
// call stands in the value as an *Object, uncalled, which is no canonical value.
func DecodePickle(data []byte) (any, error) { return decodePickle(data, true) }

func decodePickle(data []byte, objects bool) (v any, err error) {
	var s pickleSerializer
	defer func() {
		if r := recover(); r != nil {
			v, err = decoded(nil, s, fmt.Errorf("pickle: %v", r))
		}
	}()
	if err := errors.Join(checkSize(data, maxCostlyBody), checkPickle(data)); err != nil {
		return decoded(nil, s, err)
	}
	d := pickle.NewDecoderWithConfig(bytes.NewReader(data), &pickle.DecoderConfig{
		StrictUnicode: true,
		PersistentLoad: func(pickle.Ref) (any, error) {
			return nil, errors.New("persistent references are not supported")
		},
	})
	raw, err := d.Decode()
	if err != nil {
		return decoded(nil, s, err)
	}
	r := pickleReader{budget: len(data) + 1<<20, objects: objects}
	v, err = r.value(raw, 0)
	return decoded(v, s, err)
}

// pickleReader turns what the library built into canonical values. The budget of values bounds what references from
// within the pickle to itself may unfold to.
type pickleReader struct {
	budget  int
	objects bool // unknown calls are an *Object
}

func (r *pickleReader) value(v any, depth int) (any, error) {
	if depth > maxTreeDepth {
		return nil, errTooDeep
	}
	if r.budget--; r.budget < 0 {
		return nil, errors.New("references expand too far")
	}
	switch v := v.(type) {
	case pickle.None, nil:
		return nil, nil
	case bool, int64, float64, string:
		return v, nil
	case *big.Int:
		return value.Of(v)
	case pickle.Bytes:
		return []byte(v), nil
	case pickle.ByteString: // a str of Python 2
		if utf8.ValidString(string(v)) {
			return string(v), nil
		}
		return []byte(v), nil
	case []byte:
		return v, nil
	case []any:
		return r.list(v, depth)
	case pickle.Tuple:
		return r.list(v, depth)
	case map[any]any:
		return r.dict(v, depth)
	case pickle.Call:
		return r.call(v, depth)
	case pickle.Class:
		if r.objects { // as an argument of a call
			return &Object{Module: v.Module, Name: v.Name}, nil
		}
		return nil, classError(v)
	}
	return nil, fmt.Errorf("pickle of a %T is not supported", v)
}

func classError(c pickle.Class) error {
	return fmt.Errorf("pickle of class %.100q is not supported", c.Module+"."+c.Name)
}

func (r *pickleReader) list(in []any, depth int) (any, error) {
	list := make([]any, len(in))
	for i, v := range in {
		item, err := r.value(v, depth+1)
		if err != nil {
			return nil, err
		}
		list[i] = item
	}
	return list, nil
}

func (r *pickleReader) dict(in map[any]any, depth int) (any, error) {
	dict := make(map[string]any, len(in))
	for k, v := range in {
		key, err := r.value(k, depth+1)
		if err != nil {
			return nil, err
		}
		name, err := value.KeyText(key)
		if err != nil {
			return nil, err
		}
		if dict[name], err = r.value(v, depth+1); err != nil {
			return nil, err
		}
	}
	return dict, nil
}

// call evaluates the constructors that are data.
func (r *pickleReader) call(c pickle.Call, depth int) (any, error) {
	args := c.Args
	switch c.Callable.Module + "." + c.Callable.Name {
	case "datetime.datetime":
		return pickledDatetime(c)
	case "datetime.date":
		if state, ok := stateOf(args, 1, 4); ok {
			d := value.Date{Year: int(state[0])<<8 | int(state[1]), Month: time.Month(state[2]), Day: int(state[3])}
			return value.Of(d)
		}
	case "datetime.time":
		if state, ok := stateOf(args, 1, 6); ok {
			return value.Of(value.TimeOfDay(clockOf(state)))
		}
	case "datetime.timedelta":
		if d, ok := timedelta(args); ok {
			return d.Seconds(), nil
		}
	case "decimal.Decimal", "cdecimal.Decimal", "_decimal.Decimal":
		if len(args) == 1 {
			if text, ok := args[0].(string); ok {
				return value.ParseDecimal(text)
			}
		}
	case "builtins.set", "builtins.frozenset", "__builtin__.set", "__builtin__.frozenset":
		if len(args) == 1 {
			if members, ok := args[0].([]any); ok {
				return r.list(members, depth)
			}
		}
	case "uuid.UUID": // as AppendPickle writes it
		if len(args) == 1 {
			if text, ok := args[0].(string); ok {
				return uuid.Parse(text)
			}
		}
	}
	if !r.objects {
		return nil, classError(c.Callable)
	}
	list, err := r.list(args, depth)
	if err != nil {
		return nil, err
	}
	return &Object{Module: c.Callable.Module, Name: c.Callable.Name, Args: list.([]any)}, nil
}

// stateOf returns the packed state that is the first of at most max arguments.
func stateOf(args pickle.Tuple, max, size int) (state string, ok bool) {
	if len(args) == 0 || len(args) > max {
		return "", false
	}
	switch v := args[0].(type) {
	case pickle.Bytes:
		state = string(v)
	case pickle.ByteString:
		state = string(v)
	}
	return state, len(state) == size
}

// clockOf reads hour, minute, second and three bytes of microseconds. The highest bit of the hour is the fold.
func clockOf(state string) time.Duration {
	micro := int(state[3])<<16 | int(state[4])<<8 | int(state[5])
	return time.Duration(state[0]&0x7f)*time.Hour + time.Duration(state[1])*time.Minute +
		time.Duration(state[2])*time.Second + time.Duration(micro)*time.Microsecond
}

func pickledDatetime(c pickle.Call) (any, error) {
	state, ok := stateOf(c.Args, 2, 10)
	if !ok {
		return nil, classError(c.Callable)
	}
	day := value.Date{
		Year:  int(state[0])<<8 | int(state[1]),
		Month: time.Month(state[2] & 0x7f), // the highest bit is the fold of older protocols
		Day:   int(state[3]),
	}
	clock := clockOf(state[4:])
	if !day.Valid() || !value.TimeOfDay(clock).Valid() {
		return nil, errors.New("invalid datetime")
	}
	zone := time.UTC
	if len(c.Args) == 2 {
		var err error
		if zone, err = pickledZone(c.Args[1]); err != nil {
			return nil, err
		}
	}
	t := time.Date(day.Year, day.Month, day.Day, 0, 0, 0, 0, time.UTC).Add(clock)
	if len(c.Args) == 1 {
		return value.LocalTime{Time: t}, nil
	}
	t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
	return t, value.CheckTime(t)
}

// pickledZone knows datetime.timezone with a fixed offset, and pytz's UTC.
func pickledZone(v any) (*time.Location, error) {
	c, ok := v.(pickle.Call)
	if !ok {
		return nil, errors.New("time zone of a datetime is not supported")
	}
	switch c.Callable.Module + "." + c.Callable.Name {
	case "pytz._UTC":
		return time.UTC, nil
	case "datetime.timezone":
		if len(c.Args) == 0 {
			break
		}
		delta, isCall := c.Args[0].(pickle.Call)
		if !isCall || delta.Callable.Name != "timedelta" {
			break
		}
		offset, ok := timedelta(delta.Args)
		if !ok || offset <= -24*time.Hour || offset >= 24*time.Hour {
			break
		}
		if offset == 0 {
			return time.UTC, nil
		}
		return time.FixedZone("", int(offset/time.Second)), nil
	}
	return nil, classError(c.Callable)
}

// timedelta reads days, seconds and microseconds, within what a time.Duration holds.
func timedelta(args pickle.Tuple) (time.Duration, bool) {
	var parts [3]int64
	if len(args) > len(parts) {
		return 0, false
	}
	for i, arg := range args {
		n, ok := arg.(int64)
		if !ok {
			return 0, false
		}
		parts[i] = n
	}
	if days := parts[0]; days < -100_000 || days > 100_000 || parts[1]>>17 != 0 || parts[2]>>20 != 0 {
		return 0, false
	}
	return time.Duration(parts[0])*24*time.Hour + time.Duration(parts[1])*time.Second +
		time.Duration(parts[2])*time.Microsecond, true
}
