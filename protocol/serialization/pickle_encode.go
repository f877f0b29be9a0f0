package serialization

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol/value"
)

// Tuple is a list that AppendPickle writes as a tuple. Only Tuples, Dicts and the arguments of Objects may hold Tuples, Dicts
// and Objects; other Go values may not.
type Tuple []any

// Dict is a dict to AppendPickle whose values may be Tuples, Dicts and Objects.
type Dict map[string]any

// Object is the call of a Python class: in a pickle that was read one that is not data, which was not called; in one that is
// written what the reader is to call.
type Object struct {
	Module, Name string
	Args         []any
}

// AppendPickle writes v, any Go value, a Tuple, a Dict or an *Object, as a pickle of protocol 4, which Python reads from 3.4 on. It is for stores
// whose values are pickles whatever the serializer: Celery's database backend. Beside plain data it writes datetime, date,
// time, Decimal and UUID as objects of these classes. Its errors are *EncodeError.
func AppendPickle(dst []byte, v any) ([]byte, error) {
	w := pickleWriter{append(dst, 0x80, 4)}
	if err := w.any(v); err != nil {
		return encoded(nil, Pickle, err)
	}
	return append(w.buf, '.'), nil
}

type pickleWriter struct{ buf []byte }

// any writes what is not canonical yet.
func (w *pickleWriter) any(v any) error {
	switch v := v.(type) {
	case Tuple:
		return w.tuple(v)
	case *Object:
		w.class(v.Module, v.Name)
		if err := w.tuple(v.Args); err != nil {
			return err
		}
		w.buf = append(w.buf, 'R')
		return nil
	case []*Object:
		return w.list(len(v), func(i int) error { return w.any(v[i]) })
	case Dict:
		return w.dict(v, w.any)
	}
	canonical, err := value.Of(v)
	if err != nil {
		return err
	}
	return w.value(canonical)
}

func (w *pickleWriter) value(v any) error {
	switch v := v.(type) {
	case nil:
		w.buf = append(w.buf, 'N')
	case bool:
		w.buf = append(w.buf, 0x89)
		if v {
			w.buf[len(w.buf)-1] = 0x88
		}
	case int64:
		w.int(v)
	case *big.Int:
		w.big(v)
	case float64:
		w.buf = binary.BigEndian.AppendUint64(append(w.buf, 'G'), math.Float64bits(v))
	case string:
		w.sized(0x8c, 'X', 0x8d, v)
	case []byte:
		w.sized('C', 'B', 0x8e, string(v))
	case []any:
		return w.list(len(v), func(i int) error { return w.value(v[i]) })
	case map[string]any:
		return w.dict(v, w.value)
	case time.Time:
		w.datetime(v, true)
	case value.LocalTime:
		w.datetime(v.Time, false)
	case value.Date:
		w.call("datetime", "date", func() { w.sized('C', 'B', 0x8e, string(dateState(v.Year, v.Month, v.Day))) })
	case value.TimeOfDay:
		midnight := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
		w.call("datetime", "time", func() { w.sized('C', 'B', 0x8e, string(clockState(midnight.Add(time.Duration(v))))) })
	case value.Decimal:
		w.call("decimal", "Decimal", func() { w.sized(0x8c, 'X', 0x8d, string(v)) })
	case uuid.UUID:
		w.call("uuid", "UUID", func() { w.sized(0x8c, 'X', 0x8d, v.String()) })
	default:
		return fmt.Errorf("a %T has no form in a pickle", v)
	}
	return nil
}

// list writes n items.
func (w *pickleWriter) list(n int, item func(i int) error) error {
	w.buf = append(w.buf, ']')
	if n == 0 {
		return nil
	}
	w.buf = append(w.buf, '(')
	for i := range n {
		if err := item(i); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, 'e')
	return nil
}

func (w *pickleWriter) tuple(items []any) error {
	w.buf = append(w.buf, '(')
	for _, item := range items {
		if err := w.any(item); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, 't')
	return nil
}

func (w *pickleWriter) dict(m map[string]any, item func(any) error) error {
	w.buf = append(w.buf, '}')
	if len(m) == 0 {
		return nil
	}
	w.buf = append(w.buf, '(')
	for _, key := range slices.Sorted(maps.Keys(m)) {
		w.sized(0x8c, 'X', 0x8d, key)
		if err := item(m[key]); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, 'u')
	return nil
}

func (w *pickleWriter) int(n int64) {
	switch {
	case 0 <= n && n <= math.MaxUint8:
		w.buf = append(w.buf, 'K', byte(n))
	case math.MinInt32 <= n && n <= math.MaxInt32:
		w.buf = binary.LittleEndian.AppendUint32(append(w.buf, 'J'), uint32(n))
	default:
		w.big(big.NewInt(n))
	}
}

// big writes the shortest two's complement, least byte first; of more than 255 bytes the digits, which our own reader
// needs.
func (w *pickleWriter) big(n *big.Int) {
	size := n.BitLen()/8 + 1
	if size > math.MaxUint8 {
		w.buf = append(n.Append(append(w.buf, 'L'), 10), 'L', '\n')
		return
	}
	twos := n
	if n.Sign() < 0 {
		twos = new(big.Int).Add(n, new(big.Int).Lsh(big.NewInt(1), uint(8*size)))
	}
	data := twos.FillBytes(make([]byte, size))
	slices.Reverse(data)
	w.buf = append(append(w.buf, 0x8a, byte(size)), data...)
}

// sized writes data behind one of three opcodes, by its length.
func (w *pickleWriter) sized(one, four, eight byte, data string) {
	switch n := uint64(len(data)); {
	case n <= math.MaxUint8:
		w.buf = append(w.buf, one, byte(n))
	case n <= math.MaxUint32:
		w.buf = binary.LittleEndian.AppendUint32(append(w.buf, four), uint32(n))
	default:
		w.buf = binary.LittleEndian.AppendUint64(append(w.buf, eight), n)
	}
	w.buf = append(w.buf, data...)
}

func (w *pickleWriter) class(module, name string) {
	w.sized(0x8c, 'X', 0x8d, module)
	w.sized(0x8c, 'X', 0x8d, name)
	w.buf = append(w.buf, 0x93)
}

// call writes the call of a class with what args writes.
func (w *pickleWriter) call(module, name string, args func()) {
	w.class(module, name)
	w.buf = append(w.buf, '(')
	args()
	w.buf = append(w.buf, 't', 'R')
}

func (w *pickleWriter) datetime(t time.Time, aware bool) {
	w.call("datetime", "datetime", func() {
		w.sized('C', 'B', 0x8e, string(append(dateState(t.Year(), t.Month(), t.Day()), clockState(t)...)))
		if !aware {
			return
		}
		_, offset := t.Zone()
		w.call("datetime", "timezone", func() {
			w.call("datetime", "timedelta", func() {
				days := int64(math.Floor(float64(offset) / 86400))
				w.int(days)
				w.int(int64(offset) - days*86400)
			})
		})
	})
}

func dateState(year int, month time.Month, day int) []byte {
	return []byte{byte(year >> 8), byte(year), byte(month), byte(day)}
}

func clockState(t time.Time) []byte {
	micro := t.Nanosecond() / 1000
	return []byte{byte(t.Hour()), byte(t.Minute()), byte(t.Second()), byte(micro >> 16), byte(micro >> 8), byte(micro)}
}
