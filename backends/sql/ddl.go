package sql

import (
	"strings"
	"time"
)

// Types are the types of columns that databases name differently.
type Types struct{ ID, Bytes, Time string }

// CreateTable returns the statements that make one of Celery's tables as SQLAlchemy makes it for Celery 5.6: where the
// type of the id says so it is the primary key already.
func CreateTable(t Table, quote func(string) string, types Types) []string {
	name, index := quote(t.Name), quote("ix_"+t.Name+"_date_done")
	if t.Schema != "" {
		name, index = quote(t.Schema)+"."+name, quote("ix_"+t.Schema+"_"+t.Name+"_date_done")
	}
	columns := []string{"id " + types.ID}
	key := "task_id"
	if t.Group {
		key = "taskset_id"
		columns = append(columns, "taskset_id VARCHAR(155)", "result "+types.Bytes, "date_done "+types.Time)
	} else {
		columns = append(columns, "task_id VARCHAR(155)", "status VARCHAR(50)", "result "+types.Bytes, "date_done "+types.Time, "traceback TEXT",
			"name VARCHAR(155)", "args "+types.Bytes, "kwargs "+types.Bytes, "worker VARCHAR(155)", "retries INTEGER", "queue VARCHAR(155)")
	}
	if !strings.Contains(types.ID, "PRIMARY KEY") {
		columns = append(columns, "PRIMARY KEY (id)")
	}
	columns = append(columns, "UNIQUE ("+key+")")
	return []string{"CREATE TABLE " + name + " (" + strings.Join(columns, ", ") + ")",
		"CREATE INDEX " + index + " ON " + name + " (date_done)"}
}

// DoubleQuoted makes an identifier of a name by the standard.
func DoubleQuoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// PlainTime is a date as SQLAlchemy and Django write it into a column without a time zone.
func PlainTime(t time.Time) any { return t.Format("2006-01-02 15:04:05.000000") }
