package sql

import (
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol"
)

// layout is how results stand in tables: Celery's or Django's.
type layout interface {
	// tables names the tables of tasks and of groups and the sequences of their ids.
	tables() (task, group Table, sequences [2]string)
	// howToMake tells what makes tables that are not there.
	howToMake() string

	// key is the column with the task's id, columns are the others of a task, in the order of values and fields.
	key() string
	columns() []column
	// values makes a row of a meta.
	values(m *protocol.ResultMeta, now time.Time) ([]any, error)
	// Decode reads a packed row. It makes layouts a backends.Decoder.
	Decode(id string, packed []byte) (*protocol.ResultMeta, error)

	// The same of groups.
	groupKey() string
	groupColumns() []column
	groupValues(g *protocol.ResultTuple, now time.Time) ([]any, error)
	decodeGroup(id string, fields []field) (*protocol.ResultTuple, error)

	// claimValues makes a row of the groups' table of what a claim holds, a plain text, and claimHolder reads it.
	claimValues(holder string, now time.Time) ([]any, error)
	claimHolder(fields []field) (string, error)
}

// column is a column and what becomes of it when a row is written again.
type column struct {
	name     string
	again    again
	optional bool // not in older tables
}

type again int

const (
	replace    again = iota
	keep             // the first value stays
	keepIfNull       // the old value stays where the new one is NULL
)

// field is the value of a column as text or bytes; Valid is false for NULL.
type field = sql.NullString

// pack makes one text of the fields of a row, so that a watch can tell a changed row by it.
func pack(fields []field) string {
	var b []byte
	for _, f := range fields {
		if !f.Valid {
			b = append(b, 0)
			continue
		}
		b = binary.AppendUvarint(append(b, 1), uint64(len(f.String)))
		b = append(b, f.String...)
	}
	return string(b)
}

func unpack(packed []byte, n int) ([]field, error) {
	fields := make([]field, n)
	for i := range fields {
		if len(packed) == 0 {
			return nil, errors.New("a row is too short")
		}
		valid := packed[0] == 1
		if packed = packed[1:]; !valid {
			continue
		}
		size, width := binary.Uvarint(packed)
		if width <= 0 || size > uint64(len(packed)-width) {
			return nil, errors.New("a row is too short")
		}
		end := width + int(size)
		fields[i] = field{String: string(packed[width:end]), Valid: true}
		packed = packed[end:]
	}
	return fields, nil
}

// identifier is a text that must be stored as it is, or not at all.
func identifier(what, s string) (string, error) {
	if strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
		return "", fmt.Errorf("%s %.100q is no text that a database takes", what, s)
	}
	return s, nil
}

// text is a text for a person, without what databases do not take; NULL for an empty one.
func text(s string) any {
	if s == "" {
		return nil
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// date reads a date: zero for NULL and what is none. One without an offset is UTC.
func date(f field) time.Time {
	t, err := protocol.ParseTime(strings.Replace(f.String, " ", "T", 1))
	if !f.Valid || err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// check finds what does not fit the columns of a table.
func (t *table) check(columns []column, values []any) error {
	for i, c := range columns {
		limit, ok := t.limits[c.name]
		if !ok {
			continue
		}
		var size int
		switch v := values[i].(type) {
		case string:
			if size = len(v); limit.Characters > 0 && utf8.RuneCountInString(v) > limit.Characters {
				return fmt.Errorf("%s has more than the %d characters of its column", c.name, limit.Characters)
			}
		case []byte:
			size = len(v)
		}
		if limit.Bytes > 0 && size > limit.Bytes {
			return fmt.Errorf("%s has %d bytes, more than the %d of its column", c.name, size, limit.Bytes)
		}
	}
	return nil
}

// present are the columns that a table has.
func (t *table) present(columns []column, values []any) ([]column, []any) {
	var have []column
	var with []any
	for i, c := range columns {
		if c.optional && !t.columns[c.name] {
			continue
		}
		have = append(have, c)
		if values != nil {
			with = append(with, values[i])
		}
	}
	return have, with
}
