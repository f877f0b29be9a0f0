package rabbitmq

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/gelery/gelery/protocol"
)

// headerWriter writes headers as a table, in the order of an envelope.
type headerWriter struct {
	dst []byte
	h   *protocol.Headers
	all bool // write null for what is not set
	err error
}

func (w *headerWriter) headers() {
	h := w.h
	w.text("lang", h.Lang)
	w.text("task", h.Task)
	w.text("id", h.ID)
	w.text("shadow", h.Shadow)
	w.text("eta", h.ETA)
	w.text("expires", h.Expires)
	w.text("group", h.Group)
	if set := h.GroupIndex != nil; w.name("group_index", set) {
		if set {
			w.dst = appendInt(w.dst, int64(*h.GroupIndex))
		} else {
			w.dst = append(w.dst, 'V')
		}
	}
	w.number("retries", h.Retries)
	if w.name("timelimit", h.TimeLimit != protocol.TimeLimit{}) {
		at := len(w.dst)
		w.dst = appendSeconds(appendSeconds(beginField(w.dst, 'A'), h.TimeLimit.Hard), h.TimeLimit.Soft)
		finishField(w.dst, at)
	}
	w.text("root_id", h.RootID)
	w.text("parent_id", h.ParentID)
	w.text("argsrepr", h.ArgsRepr)
	w.text("kwargsrepr", h.KwargsRepr)
	w.text("origin", h.Origin)
	if h.IgnoreResult != nil && w.name("ignore_result", true) {
		w.dst = appendBool(w.dst, *h.IgnoreResult)
	}
	w.number("replaced_task_nesting", h.ReplacedTaskNesting)
	if w.name("stamped_headers", len(h.StampedHeaders) > 0) {
		w.list(h.StampedHeaders)
	}
	if w.name("stamps", len(h.Stamps) > 0) {
		w.stamps()
	}
	if h.Compression != "" {
		w.text("compression", h.Compression)
	}
	for _, e := range h.Extra {
		if (!protocol.IsStandardHeader(e.Name) || slices.Contains(h.Malformed, e.Name)) && !isBrokerHeader(e.Name) {
			w.extra(e)
		}
	}
}

// name writes the name of a header and reports whether its value is to follow. A malformed one is among the extra
// headers.
func (w *headerWriter) name(name string, set bool) bool {
	if !set && !w.all || len(w.h.Malformed) > 0 && slices.Contains(w.h.Malformed, name) {
		return false
	}
	w.dst = appendName(w.dst, name)
	return true
}

func (w *headerWriter) text(name, text string) {
	if !w.name(name, text != "") {
		return
	}
	if text == "" {
		w.dst = append(w.dst, 'V')
		return
	}
	w.dst = appendText(w.dst, readable(text))
}

// readable is text without bytes of which py-amqp would make bytes instead of a str.
func readable(text string) string {
	if validText(text) {
		return text
	}
	return repaired(text, func(dst []byte, _ byte) []byte { return append(dst, "\ufffd"...) })
}

func (w *headerWriter) number(name string, n int) {
	if w.name(name, n != 0) {
		w.dst = appendInt(w.dst, int64(n))
	}
}

// appendSeconds appends a time limit: null for none, a whole number where it is one.
func appendSeconds(dst []byte, seconds float64) []byte {
	switch {
	case !(seconds > 0) || math.IsInf(seconds, 0): // or NaN
		return append(dst, 'V')
	case seconds == math.Trunc(seconds) && seconds < 1<<53:
		return appendInt(dst, int64(seconds))
	}
	return appendFloat(dst, seconds)
}

func (w *headerWriter) list(items []string) {
	if len(items) == 0 {
		w.dst = append(w.dst, 'V')
		return
	}
	at := len(w.dst)
	w.dst = beginField(w.dst, 'A')
	for _, item := range items {
		w.dst = appendText(w.dst, readable(item))
	}
	finishField(w.dst, at)
}

// stamps writes the stamps in the order in which they are named, then those that are not named.
func (w *headerWriter) stamps() {
	at := len(w.dst)
	w.dst = beginField(w.dst, 'F')
	stamps, named := w.h.Stamps, w.h.StampedHeaders
	for i, name := range named {
		if text, ok := stamps[name]; ok && !slices.Contains(named[:i], name) {
			w.extra(protocol.Header{Name: name, Value: text})
		}
	}
	if len(stamps) > 0 {
		for _, name := range slices.Sorted(maps.Keys(stamps)) {
			if !slices.Contains(named, name) {
				w.extra(protocol.Header{Name: name, Value: stamps[name]})
			}
		}
	}
	finishField(w.dst, at)
}

// extra writes a header whose value is JSON text.
func (w *headerWriter) extra(e protocol.Header) {
	if err := checkShort("the name of header", e.Name); err != nil {
		w.err = cmp.Or(w.err, err)
		return
	}
	w.dst = appendName(w.dst, e.Name)
	at := len(w.dst)
	dst, err := appendJSONField(w.dst, e.Value, 1)
	switch {
	case errors.Is(err, errNotJSON):
		dst = append(dst[:at], 'V')
	case err != nil:
		w.err = cmp.Or(w.err, fmt.Errorf("header %s: %w", e.Name, err))
	}
	w.dst = dst
}

// shareBelow is the size of a header table, in bytes, below which its strings share one copy of it. A larger one must
// not be kept alive by one header.
const shareBelow = 16 << 10

// decoding is a message on its way in. What its optional headers point to lies beside it, so that a message is one
// allocation.
type decoding struct {
	protocol.Message
	groupIndex   int
	ignoreResult bool
}

// headers reads the header table. As in an envelope, a known header of the wrong type is left zero, named in Malformed
// and kept among the extra ones, and of repeated headers the last counts. The error is that of a table that cannot be
// read to its end.
func (d *decoding) headers(raw []byte) error {
	h := &d.Headers
	shared := ""
	if len(raw) <= shareBelow {
		shared = string(raw)
	}
	var values []byte // of the extra headers, one behind the other
	repeated := false
	t := tableReader{raw: raw}
	for {
		name, f, ok := t.next()
		if !ok {
			break
		}
		text := ""
		if f.kind == 'S' {
			if shared != "" {
				text = shared[t.pos-len(f.data) : t.pos]
			} else {
				text = string(f.data)
			}
		}
		known, ok := d.header(string(name), f, text)
		if ok {
			if i := malformedAt(h, name); i >= 0 {
				h.Malformed = slices.Delete(h.Malformed, i, i+1)
				repeated = true
			}
			continue
		}
		extra := protocol.Header{Name: string(name)}
		if known && malformedAt(h, name) < 0 {
			h.Malformed = append(h.Malformed, extra.Name)
		}
		start := len(values)
		var err error
		if values, err = appendFieldJSON(values, f, 1); err != nil && t.err == nil {
			t.err = err
		}
		extra.Value = json.RawMessage(values[start:len(values):len(values)])
		h.Extra = append(h.Extra, extra)
		if t.err != nil {
			break
		}
	}
	if repeated || len(h.Extra) > 1 {
		h.KeepLast()
	}
	return t.err
}

func malformedAt(h *protocol.Headers, name []byte) int {
	for i, m := range h.Malformed {
		if m == string(name) {
			return i
		}
	}
	return -1
}

// header takes over the value of one header; text is that of a field of text. Not ok: the header is unknown, or known
// and of the wrong type, and its field is zero.
func (d *decoding) header(name string, f tableField, text string) (known, ok bool) {
	target, required, solid := d.Headers.Text(name)
	if target == nil {
		return d.otherHeader(name, f)
	}
	*target = ""
	if f.kind == 'V' {
		return true, !required
	}
	if f.kind != 'S' || !validText(text) || text == "" && (required || solid) {
		return true, false
	}
	*target = text
	return true, true
}

// otherHeader takes over the headers that are no text.
func (d *decoding) otherHeader(name string, f tableField) (known, ok bool) {
	h := &d.Headers
	null := f.kind == 'V'
	ok = null
	switch name {
	case "group_index":
		if h.GroupIndex = nil; !null {
			if d.groupIndex, ok = smallInt(f); ok {
				h.GroupIndex = &d.groupIndex
			}
		}
	case "ignore_result":
		if h.IgnoreResult = nil; f.kind == 't' {
			d.ignoreResult, ok = f.data[0] != 0, true
			h.IgnoreResult = &d.ignoreResult
		}
	case "retries":
		if h.Retries = 0; !null {
			h.Retries, ok = smallInt(f)
		}
	case "replaced_task_nesting":
		if h.ReplacedTaskNesting = 0; !null {
			h.ReplacedTaskNesting, ok = smallInt(f)
		}
	case "timelimit":
		if h.TimeLimit = (protocol.TimeLimit{}); !null {
			h.TimeLimit, ok = timeLimit(f)
		}
	case "stamped_headers":
		if h.StampedHeaders = nil; !null {
			h.StampedHeaders, ok = texts(f)
		}
	case "stamps":
		if h.Stamps = nil; !null {
			h.Stamps, ok = jsonMap(f)
		}
	case "redelivered":
		if h.Redelivered = false; f.kind == 't' {
			h.Redelivered, ok = f.data[0] != 0, true
		}
	default:
		return false, false
	}
	return true, ok
}

// smallInt reads a whole number that fits 32 bits, also from a float, as protocol does.
func smallInt(f tableField) (int, bool) {
	x, ok := f.number()
	if !ok || x != math.Trunc(x) || math.Abs(x) > math.MaxInt32 {
		return 0, false
	}
	return int(x), true
}

// timeLimit reads the pair [hard, soft], each a number of seconds or null.
func timeLimit(f tableField) (l protocol.TimeLimit, ok bool) {
	if f.kind != 'A' {
		return l, false
	}
	pair := [2]float64{}
	n := 0
	t := tableReader{raw: f.data}
	for ; ; n++ {
		item, more := t.item()
		if !more {
			break
		}
		if n == len(pair) {
			return l, false
		}
		if item.kind == 'V' {
			continue
		}
		seconds, number := item.number()
		if !number || seconds < 0 {
			return l, false
		}
		pair[n] = seconds
	}
	if t.err != nil || n != len(pair) {
		return l, false
	}
	return protocol.TimeLimit{Hard: pair[0], Soft: pair[1]}, true
}

// texts reads an array of text.
func texts(f tableField) (list []string, ok bool) {
	if f.kind != 'A' {
		return nil, false
	}
	t := tableReader{raw: f.data}
	for {
		item, more := t.item()
		if !more {
			break
		}
		text := string(item.data)
		if item.kind != 'S' || !validText(text) {
			return nil, false
		}
		list = append(list, text)
	}
	if t.err != nil {
		return nil, false
	}
	return list, true
}

// jsonMap reads a table into JSON texts. An empty one is nil.
func jsonMap(f tableField) (m map[string]json.RawMessage, ok bool) {
	if f.kind != 'F' {
		return nil, false
	}
	t := tableReader{raw: f.data}
	for {
		name, item, more := t.next()
		if !more {
			break
		}
		text, err := appendFieldJSON(nil, item, 2)
		if err != nil {
			return nil, false
		}
		if m == nil {
			m = make(map[string]json.RawMessage)
		}
		m[string(name)] = text
	}
	if t.err != nil {
		return nil, false
	}
	return m, true
}
