package scheduler

import (
	"container/heap"
	"iter"
	"time"
)

// Table keeps entries in memory, in the order in which they are due. It is for stores; one goroutine at a time may use it.
type Table struct {
	rows   map[string]*row
	due    dueHeap
	paused int // how many of the rows are
}

type row struct {
	record Record
	due    time.Time
	at     int // its place in the heap; -1: it is never due
}

// NewTable makes an empty table.
func NewTable() *Table { return &Table{rows: map[string]*row{}} }

// Len is how many entries there are.
func (t *Table) Len() int { return len(t.rows) }

// Paused is how many of them are paused.
func (t *Table) Paused() int { return t.paused }

// Get is the entry of a name.
func (t *Table) Get(name string) (Record, bool) {
	if r := t.rows[name]; r != nil {
		return r.record, true
	}
	return Record{}, false
}

// All are all entries, in no order. The table must not be changed meanwhile.
func (t *Table) All() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, r := range t.rows {
			if !yield(r.record) {
				return
			}
		}
	}
}

// Set adds an entry, or takes the place of the one of its name. It is due when its schedule and state say.
func (t *Table) Set(r Record) {
	var due time.Time
	if !r.Entry.Paused {
		due = r.Entry.Due(r.State)
	}
	t.set(r, due)
}

func (t *Table) set(r Record, due time.Time) {
	x := t.rows[r.Entry.Name]
	if x == nil {
		x = &row{at: -1}
		t.rows[r.Entry.Name] = x
	} else if x.record.Entry.Paused {
		t.paused--
	}
	if x.record, x.due = r, due; r.Entry.Paused {
		t.paused++
	}
	switch {
	case due.IsZero() && x.at >= 0:
		heap.Remove(&t.due, x.at)
	case due.IsZero():
	case x.at >= 0:
		heap.Fix(&t.due, x.at)
	default:
		heap.Push(&t.due, x)
	}
}

// SetDue is Set with a time at which the entry is due; the zero time: never.
func (t *Table) SetDue(r Record, due time.Time) { t.set(r, due) }

// Remove takes an entry out, if it is there.
func (t *Table) Remove(name string) {
	if x := t.rows[name]; x != nil {
		if x.at >= 0 {
			heap.Remove(&t.due, x.at)
		}
		if x.record.Entry.Paused {
			t.paused--
		}
		delete(t.rows, name)
	}
}

// Moved is what [Lease.Mark] says of an entry. One that was changed since it was due keeps its new definition, and is due by it.
func (t *Table) Moved(m Mark) {
	x := t.rows[m.Entry.Name]
	if x == nil {
		return
	}
	r := x.record
	if r.State = m.State; r.Entry != m.Entry {
		t.Set(r)
		return
	}
	due := m.Next
	if m.Pause {
		paused := *r.Entry
		paused.Paused = true
		r.Entry, due = &paused, time.Time{}
	}
	t.set(r, due)
}

// Due is as in [Lease].
func (t *Table) Due(now time.Time, limit int) (due []Record, next time.Time) {
	var taken []*row
	for len(t.due) > 0 && len(taken) < limit && !t.due[0].due.After(now) {
		taken = append(taken, heap.Pop(&t.due).(*row))
	}
	if len(t.due) > 0 {
		next = t.due[0].due
	}
	for _, x := range taken {
		due = append(due, x.record)
		heap.Push(&t.due, x)
	}
	return due, next
}

// dueHeap is container/heap's: the earliest first.
type dueHeap []*row

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push is container/heap's.
func (h *dueHeap) Push(x any) {
	r := x.(*row)
	r.at = len(*h)
	*h = append(*h, r)
}

// Pop is container/heap's.
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h, r.at = (*h)[:last], -1
	return r
}
