package monitor

import (
	"iter"
	"strings"
)

// recent are records by their keys, in the order in which they were heard of last.
type recent[T any] struct {
	records        map[string]*record[T]
	newest, oldest *record[T]
}

// record is a value with its place in the order.
type record[T any] struct {
	key          string
	value        T
	newer, older *record[T]
}

func newRecent[T any]() recent[T] { return recent[T]{records: map[string]*record[T]{}} }

func (r *recent[T]) len() int { return len(r.records) }

// get is what is remembered under a key; nil: nothing.
func (r *recent[T]) get(key string) *T {
	if found := r.records[key]; found != nil {
		return &found.value
	}
	return nil
}

// touch makes the record of a key the newest. One that was not there is zero, and in memory of its own; its key is returned.
func (r *recent[T]) touch(key string) (v *T, own string, added bool) {
	found := r.records[key]
	switch {
	case found == nil:
		found = &record[T]{key: strings.Clone(key)}
		r.records[found.key] = found
		added = true
	case found == r.newest:
		return &found.value, found.key, false
	default:
		r.unlink(found)
	}
	if found.older = r.newest; found.older != nil {
		found.older.newer = found
	}
	r.newest = found
	if r.oldest == nil {
		r.oldest = found
	}
	return &found.value, found.key, added
}

// remove forgets a key.
func (r *recent[T]) remove(key string) {
	if found := r.records[key]; found != nil {
		r.unlink(found)
		delete(r.records, key)
	}
}

func (r *recent[T]) unlink(x *record[T]) {
	if x.newer != nil {
		x.newer.older = x.older
	} else {
		r.newest = x.older
	}
	if x.older != nil {
		x.older.newer = x.newer
	} else {
		r.oldest = x.newer
	}
	x.newer, x.older = nil, nil
}

// last is the record that was not heard of for the longest time; nil: there is none.
func (r *recent[T]) last() *T {
	if r.oldest == nil {
		return nil
	}
	return &r.oldest.value
}

// newestFirst are all records. None may be touched or removed meanwhile.
func (r *recent[T]) newestFirst() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for x := r.newest; x != nil && yield(&x.value); x = x.older {
		}
	}
}

// oldestFirst are all records. The one that was yielded last may be removed.
func (r *recent[T]) oldestFirst() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for x := r.oldest; x != nil; {
			next := x.newer
			if !yield(&x.value) {
				return
			}
			x = next
		}
	}
}
