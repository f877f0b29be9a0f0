package value

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"
)

// Field is one field of a struct as its tags describe it.
//
// The tag is `task:"name,option,..."`; without one the name of the json tag counts, and without that the snake_case
// of the field's name. "-" leaves the field out. Options: omitempty; secret, for what texts about it do not show; and for the binding of task arguments default=…,
// kwonly, posonly, remain, varargs.
type Field struct {
	Name      string
	Index     []int // for reflect.Value.FieldByIndex
	Type      reflect.Type
	OmitEmpty bool
	Secret    bool

	Default  *string // text after default=; it ends at the next comma; nil: none
	KwOnly   bool
	PosOnly  bool
	Remain   bool
	VarArgs  bool
	embedPtr bool // the way to it leads through an embedded pointer
}

// Fields lists the fields of struct type t in order, those of embedded structs in their place. An outer name hides
// the same name of an embedded struct; the same name twice on one level is an error.
func Fields(t reflect.Type) ([]Field, error) {
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("%s is not a struct", t)
	}
	fields, err := appendFields(nil, t, nil, false, map[reflect.Type]bool{})
	if err != nil {
		return nil, err
	}
	return dropHidden(t, fields)
}

func appendFields(fields []Field, t reflect.Type, index []int, viaPtr bool, open map[reflect.Type]bool) ([]Field, error) {
	if open[t] { // a struct that embeds a pointer to itself has no end
		return fields, nil
	}
	open[t] = true
	defer delete(open, t)
	for i := range t.NumField() {
		sf := t.Field(i)
		f, tagged, skip, err := parseTag(sf)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if skip {
			continue
		}
		f.Index = append(append([]int(nil), index...), i)
		f.embedPtr = viaPtr
		inner, isPtr := sf.Type, false
		if inner.Kind() == reflect.Pointer {
			inner, isPtr = inner.Elem(), true
		}
		if sf.Anonymous && !tagged && inner.Kind() == reflect.Struct && !isLeaf(inner) {
			if isPtr && !sf.IsExported() { // reflection may not set it
				continue
			}
			if fields, err = appendFields(fields, inner, f.Index, viaPtr || isPtr, open); err != nil {
				return nil, err
			}
			continue
		}
		if sf.IsExported() {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

func parseTag(sf reflect.StructField) (f Field, tagged, skip bool, err error) {
	f = Field{Type: sf.Type}
	tag, own := sf.Tag.Lookup("task")
	if !own {
		tag = sf.Tag.Get("json")
	}
	if tag == "-" {
		return f, false, true, nil
	}
	name, options, _ := strings.Cut(tag, ",")
	for options != "" {
		var option string
		option, options, _ = strings.Cut(options, ",")
		switch {
		case option == "omitempty" || option == "omitzero":
			f.OmitEmpty = true
		case own && option == "secret":
			f.Secret = true
		case !own: // json's "string" and others are none of ours
		case strings.HasPrefix(option, "default="):
			text := option[len("default="):]
			f.Default = &text
		case option == "kwonly":
			f.KwOnly = true
		case option == "posonly":
			f.PosOnly = true
		case option == "remain":
			f.Remain = true
		case option == "varargs":
			f.VarArgs = true
		default:
			return f, false, false, fmt.Errorf("field %s: unknown tag option %q", sf.Name, option)
		}
	}
	f.Name = name
	if name == "" {
		f.Name = SnakeCase(sf.Name)
	}
	return f, name != "", false, nil
}

func dropHidden(t reflect.Type, fields []Field) ([]Field, error) {
	best := make(map[string]int, len(fields)) // name to its least depth
	for _, f := range fields {
		if depth, seen := best[f.Name]; !seen || len(f.Index) < depth {
			best[f.Name] = len(f.Index)
		}
	}
	kept := fields[:0]
	taken := make(map[string]bool, len(fields))
	for _, f := range fields {
		if len(f.Index) != best[f.Name] {
			continue
		}
		if taken[f.Name] {
			return nil, fmt.Errorf("%s: two fields are named %q", t, f.Name)
		}
		taken[f.Name] = true
		kept = append(kept, f)
	}
	return kept, nil
}

// SnakeCase turns a Go name into a Python one: UserID is user_id, HTTPServer http_server.
func SnakeCase(name string) string {
	runes := []rune(name)
	var b strings.Builder
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && runes[i-1] != '_' {
			endsWord := !unicode.IsUpper(runes[i-1])
			startsWord := i+1 < len(runes) && unicode.IsLower(runes[i+1])
			if endsWord || startsWord {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
