package value

import (
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// TypeError says that a value does not fit where it should go, or cannot be sent at all. Its text names types as
// Python does: `x: expected int, got str "5"`.
type TypeError struct {
	Path string // where: "x", "x.items[2]"; empty at the top
	Want string // "int"; empty when the value can be sent nowhere
	Got  string // `str "5"`
	Err  error  // what a user's own method said, or nil
}

func (e *TypeError) Error() string {
	text := "expected " + e.Want + ", got " + e.Got
	if e.Want == "" {
		text = "cannot send " + e.Got
	}
	if e.Path != "" {
		text = e.Path + ": " + text
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

func (e *TypeError) Unwrap() error { return e.Err }

// WithPath puts name, a parameter or a field, before the path of a *TypeError. Other errors and nil are returned as
// they are.
func WithPath(err error, name string) error {
	var te *TypeError
	if !errors.As(err, &te) {
		return err
	}
	located := *te
	switch {
	case te.Path == "":
		located.Path = name
	case te.Path[0] == '[':
		located.Path = name + te.Path
	default:
		located.Path = name + "." + te.Path
	}
	return &located
}

func withIndex(err error, i int) error { return WithPath(err, "["+strconv.Itoa(i)+"]") }

// ErrDepth is wrapped by every refusal of a value that is nested too deep, which every cyclic value is.
var ErrDepth = fmt.Errorf("nested deeper than %d levels", MaxDepth)

func mismatch(want string, src any) error { return &TypeError{Want: want, Got: describe(src)} }

func unsendable(t reflect.Type, cause error) error { return &TypeError{Got: t.String(), Err: cause} }

// describe names a value for an error: its Python type and, where short enough to help, the value.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case string:
		return "str " + strconv.Quote(clip(v))
	case []any:
		return "list of " + strconv.Itoa(len(v))
	case map[string]any:
		return "dict"
	case []byte:
		return "bytes"
	}
	name := PythonType(v)
	if name == "" {
		return fmt.Sprintf("%T", v)
	}
	return name + " " + Repr(v, 64)
}

// PythonType names the Python type of a canonical value: "int", "str", "datetime". It is empty for any other value.
func PythonType(v any) string {
	switch v.(type) {
	case nil:
		return "NoneType"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string:
		return "str"
	case []byte:
		return "bytes"
	case []any:
		return "list"
	case map[string]any:
		return "dict"
	case time.Time, LocalTime:
		return "datetime"
	case Date:
		return "date"
	case TimeOfDay:
		return "time"
	case Decimal:
		return "Decimal"
	case uuid.UUID:
		return "UUID"
	}
	return ""
}
