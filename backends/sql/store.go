package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/database"
	"github.com/gelery/gelery/protocol"
)

// What one statement takes at most: SQLite has 32766 arguments, MySQL packets of 16 MiB.
const (
	batchRows  = 100
	batchBytes = 4 << 20
	batchKeys  = 500

	maxRaces = 50 // with other writers of the same rows, before the batch is tried again with a pause
)

// row is what is to be written of one task or group.
type row struct {
	id     string
	final  bool // a SUCCESS
	values []any
	size   int // bytes, about
}

// Store is backends.Backend's: one question and one statement for up to 100 records or 4 MiB. Unlike Celery's it leaves a
// stored SUCCESS alone. It waits out a database that is away, busy or full.
func (b *Backend) Store(ctx context.Context, batch []*protocol.ResultMeta) error {
	rows := make([]row, 0, len(batch))
	places := make(map[string]int, len(batch))
	now := time.Now()
	for _, m := range batch {
		r, err := b.row(m, now)
		if err != nil {
			return &backends.EncodeError{TaskID: m.TaskID, Err: err}
		}
		// Of the records of one task the last counts, or the first SUCCESS.
		if place, again := places[m.TaskID]; !again {
			places[m.TaskID] = len(rows)
			rows = append(rows, r)
		} else if !rows[place].final {
			rows[place] = r
		}
	}
	if len(rows) == 0 {
		return nil
	}
	// In one order, so that two writers do not wait for each other.
	slices.SortFunc(rows, func(x, y row) int { return strings.Compare(x.id, y.id) })
	return b.do(ctx, "store results", func(ctx context.Context, t *tables) error {
		w := writer{b: b, table: t.task, key: b.layout.key(), columns: b.layout.columns(), keepSuccess: true}
		return w.write(ctx, rows)
	})
}

func (b *Backend) row(m *protocol.ResultMeta, now time.Time) (row, error) {
	if err := m.Check(); err != nil {
		return row{}, err
	}
	id, err := identifier("the id", m.TaskID)
	if err != nil {
		return row{}, err
	}
	values, err := b.layout.values(m, now)
	return newRow(id, m.Status == protocol.Success, values), err
}

func newRow(id string, final bool, values []any) row {
	r := row{id: id, final: final, values: values, size: 100 + len(id)}
	for _, v := range values {
		switch v := v.(type) {
		case string:
			r.size += len(v)
		case []byte:
			r.size += len(v)
		}
	}
	return r
}

// writer writes rows of one table.
type writer struct {
	b           *Backend
	table       *table
	key         string
	columns     []column
	keepSuccess bool // a row that says SUCCESS stays
	keepAll     bool // every row that is there stays
}

func (w writer) write(ctx context.Context, rows []row) error {
	for _, r := range rows {
		if err := w.check(r); err != nil {
			return &backends.EncodeError{TaskID: r.id, Err: err}
		}
	}
	for races := 0; len(rows) > 0; {
		n, size := 1, rows[0].size
		for n < len(rows) && n < batchRows && size+rows[n].size <= batchBytes {
			size += rows[n].size
			n++
		}
		err := w.writeSome(ctx, rows[:n])
		switch {
		case err == nil:
			rows = rows[n:]
		case w.b.kind(err) == database.Raced && races < maxRaces:
			races++
		default:
			return err
		}
	}
	return nil
}

func (w writer) check(r row) error {
	if !w.table.takes(w.key, r.id) {
		return errors.New("the column of ids does not take every character of the id")
	}
	if err := w.table.check([]column{{name: w.key}}, []any{r.id}); err != nil {
		return err
	}
	return w.table.check(w.columns, r.values)
}

// writeSome asks which rows are there, because new ids for all of them would use up the ids, of which there are two
// billion, and then writes all with one statement that decides again what stays. PostgreSQL finds the number of a row twice
// if another one writes that row at the same moment: that is database.Raced.
func (w writer) writeSome(ctx context.Context, rows []row) error {
	known, err := w.known(ctx, rows)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(slices.Clone(rows), func(r row) bool {
		old, there := known[r.id]
		return there && (w.keepAll || w.keepSuccess && old.success)
	})
	if len(rows) == 0 {
		return nil
	}
	text, args := w.insert(rows, known)
	_, err = w.b.db.ExecContext(ctx, text, args...)
	if err != nil && w.b.kind(err) == database.Unfit {
		return w.blame(ctx, rows, known, err)
	}
	return err
}

// known is a row that is there.
type known struct {
	id      string // the number of the row
	success bool
}

func (w writer) known(ctx context.Context, rows []row) (map[string]known, error) {
	ids := make([]string, len(rows))
	asked := make(map[string]bool, len(rows))
	for i, r := range rows {
		ids[i], asked[r.id] = r.id, true
	}
	status := "NULL"
	if w.keepSuccess {
		status = "status"
	}
	found := make(map[string]known, len(rows))
	err := w.b.query(ctx, w.table, w.key, ids, []string{"id", status}, func(id string, f []field) error {
		if !asked[id] {
			i := slices.IndexFunc(ids, func(other string) bool { return strings.EqualFold(strings.TrimSpace(other), strings.TrimSpace(id)) })
			return &backends.EncodeError{TaskID: ids[max(i, 0)], Err: fmt.Errorf("the database takes the id for the same as %q, which is there", id)}
		}
		found[id] = known{id: f[0].String, success: f[1].String == string(protocol.Success)}
		return nil
	})
	return found, err
}

// insert makes the statement that inserts the rows, or replaces those that are there.
func (w writer) insert(rows []row, found map[string]known) (string, []any) {
	d := w.b.dialect
	var s strings.Builder
	columns, _ := w.table.present(w.columns, nil)
	s.WriteString("INSERT INTO " + w.table.quoted)
	if !d.DuplicateKey {
		s.WriteString(" AS old")
	}
	s.WriteString(" (id, " + w.key)
	for _, c := range columns {
		s.WriteString(", " + c.name)
	}
	s.WriteString(") VALUES ")
	var args []any
	for i, r := range rows {
		if i > 0 {
			s.WriteString(", ")
		}
		id := w.table.newID
		if old, ok := found[r.id]; ok {
			id = old.id // digits, as the database gave them
		}
		s.WriteString("(" + id)
		_, values := w.table.present(w.columns, r.values)
		for _, v := range append([]any{r.id}, values...) {
			args = append(args, v)
			s.WriteString(", " + d.Placeholder(len(args)))
		}
		s.WriteString(")")
	}
	w.replacing(&s, columns)
	return s.String(), args
}

// replacing ends the statement with what happens to rows that are there.
func (w writer) replacing(s *strings.Builder, columns []column) {
	d := w.b.dialect
	if w.keepAll {
		if d.DuplicateKey {
			s.WriteString(" ON DUPLICATE KEY UPDATE " + w.key + " = " + w.key)
		} else {
			s.WriteString(" ON CONFLICT (" + w.key + ") DO NOTHING")
		}
		return
	}
	success := "'" + string(protocol.Success) + "'"
	if !d.DuplicateKey {
		s.WriteString(" ON CONFLICT (" + w.key + ") DO UPDATE SET ")
		first := true
		for _, c := range columns {
			if c.again == keep {
				continue
			}
			if !first {
				s.WriteString(", ")
			}
			first = false
			if c.again == keepIfNull {
				s.WriteString(c.name + " = COALESCE(excluded." + c.name + ", old." + c.name + ")")
			} else {
				s.WriteString(c.name + " = excluded." + c.name)
			}
		}
		if w.keepSuccess {
			s.WriteString(" WHERE COALESCE(old.status, '') <> " + success)
		}
		return
	}
	// The assignments are made one after the other and see each other: the status, which decides, comes last.
	columns = slices.Clone(columns)
	slices.SortStableFunc(columns, func(x, y column) int { return strings.Compare(decides(x), decides(y)) })
	s.WriteString(" ON DUPLICATE KEY UPDATE ")
	first := true
	for _, c := range columns {
		if c.again == keep {
			continue
		}
		if !first {
			s.WriteString(", ")
		}
		first = false
		value := "VALUES(" + c.name + ")"
		if c.again == keepIfNull {
			value = "COALESCE(" + value + ", " + c.name + ")"
		}
		if w.keepSuccess {
			value = "IF(" + d.Binary("COALESCE(status, '')") + " = " + success + ", " + c.name + ", " + value + ")"
		}
		s.WriteString(c.name + " = " + value)
	}
}

func decides(c column) string {
	if c.name == "status" {
		return "last"
	}
	return ""
}

// blame finds the row that the database refuses for its values, and leaves none of them written.
func (w writer) blame(ctx context.Context, rows []row, found map[string]known, refusal error) (err error) {
	if len(rows) == 1 {
		return &backends.EncodeError{TaskID: rows[0].id, Err: refusal}
	}
	tx, err := w.b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() {
		if back := tx.Rollback(); err != nil && back != nil && !errors.Is(back, sql.ErrTxDone) {
			err = errors.Join(err, back)
		}
	}()
	for _, r := range rows {
		text, args := w.insert([]row{r}, found)
		if _, err := tx.ExecContext(ctx, text, args...); err != nil {
			if w.b.kind(err) == database.Unfit {
				return &backends.EncodeError{TaskID: r.id, Err: err}
			}
			return err
		}
	}
	return tx.Commit()
}
