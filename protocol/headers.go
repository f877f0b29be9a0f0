package protocol

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/gelery/gelery/protocol/serialization"
)

// IsStandardHeader reports whether a header has a field of its own in Headers.
func IsStandardHeader(name string) bool {
	switch name {
	case "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
		"parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
		"stamps", "compression", "redelivered":
		return true
	}
	return false
}

// headers reads the headers object that follows into an empty set of headers.
func (s *scanner) headers(d *decoding) {
	h := &d.Headers
	*h = Headers{}
	s.open('{')
	repeated := false
	for n := 0; ; n++ {
		name, ok := s.member(n)
		if !ok {
			break
		}
		s.peek()
		start := s.pos
		known, ok := s.header(d, name)
		if ok {
			if i := slices.Index(h.Malformed, name); i >= 0 {
				h.Malformed = slices.Delete(h.Malformed, i, i+1)
				repeated = true
			}
			continue
		}
		if known && !slices.Contains(h.Malformed, name) {
			h.Malformed = append(h.Malformed, name)
		}
		h.Extra = append(h.Extra, Header{name, json.RawMessage(s.text[start:s.pos])})
	}
	if repeated || len(h.Extra) > 1 {
		h.KeepLast()
	}
}

// KeepLast drops from Extra the headers that a later one of the same name overrides, and those of a known name whose last
// value was fine and is in its field. Decoders call it when a name may have come twice.
func (h *Headers) KeepLast() { h.Extra = lastOfEach(h.Extra, h.Malformed) }

func lastOfEach(extra []Header, malformed []string) []Header {
	last := make(map[string]int, len(extra))
	for i, e := range extra {
		last[e.Name] = i
	}
	kept := extra[:0]
	for i, e := range extra {
		if last[e.Name] == i && (!IsStandardHeader(e.Name) || slices.Contains(malformed, e.Name)) {
			kept = append(kept, e)
		}
	}
	if len(kept) == 0 {
		return nil
	}
	return kept
}

// Text returns the field of a header that is text, nil for any other header. Required: null and "" are no value for it.
// Solid: "" is none.
func (h *Headers) Text(name string) (field *string, required, solid bool) {
	switch name {
	case "lang":
		return &h.Lang, false, false
	case "task":
		return &h.Task, true, false
	case "id":
		return &h.ID, false, true
	case "shadow":
		return &h.Shadow, false, false
	case "eta":
		return &h.ETA, false, true
	case "expires":
		return &h.Expires, false, true
	case "group":
		return &h.Group, false, false
	case "root_id":
		return &h.RootID, false, false
	case "parent_id":
		return &h.ParentID, false, false
	case "argsrepr":
		return &h.ArgsRepr, false, false
	case "kwargsrepr":
		return &h.KwargsRepr, false, false
	case "origin":
		return &h.Origin, false, false
	case "compression":
		return &h.Compression, false, false
	}
	return nil, false, false
}

// header reads the value of one header. It steps over the value in any case. Not ok: the header is unknown, or known
// and of the wrong type, and its field is zero.
func (s *scanner) header(d *decoding, name string) (known, ok bool) {
	text, required, solid := d.Headers.Text(name)
	if text == nil {
		return s.otherHeader(d, name)
	}
	*text = ""
	if s.null() {
		return true, !required
	}
	*text, ok = s.str()
	return true, ok && (*text != "" || !required && !solid)
}

// otherHeader reads the headers that are no strings, and steps over those it does not know.
func (s *scanner) otherHeader(d *decoding, name string) (known, ok bool) {
	h := &d.Headers
	null := s.null()
	ok = null
	switch name {
	case "group_index":
		if h.GroupIndex = nil; !null {
			if d.groupIndex, ok = s.int(); ok {
				h.GroupIndex = &d.groupIndex
			}
		}
	case "ignore_result":
		if h.IgnoreResult = nil; !null {
			if d.ignoreResult, ok = s.bool(); ok {
				h.IgnoreResult = &d.ignoreResult
			}
		}
	case "retries":
		if h.Retries = 0; !null {
			h.Retries, ok = s.int()
		}
	case "replaced_task_nesting":
		if h.ReplacedTaskNesting = 0; !null {
			h.ReplacedTaskNesting, ok = s.int()
		}
	case "timelimit":
		if h.TimeLimit = (TimeLimit{}); !null {
			h.TimeLimit, ok = s.timeLimit()
		}
	case "stamped_headers":
		if h.StampedHeaders = nil; !null {
			h.StampedHeaders, ok = s.strings()
		}
	case "stamps":
		if h.Stamps = nil; !null {
			h.Stamps, ok = s.rawMap()
		}
	case "redelivered":
		if h.Redelivered = false; !null {
			h.Redelivered, ok = s.bool()
		}
	default:
		if !null {
			s.skip()
		}
		return false, false
	}
	return true, ok
}

// timeLimit reads the pair [hard, soft], each a number of seconds or null.
func (s *scanner) timeLimit() (l TimeLimit, ok bool) {
	if s.peek() != '[' {
		s.skip()
		return l, false
	}
	s.open('[')
	ok = true
	n := 0
	for ; s.next(n, ']'); n++ {
		if s.null() {
			continue
		}
		seconds, number := s.float()
		ok = ok && number && seconds >= 0
		switch n {
		case 0:
			l.Hard = seconds
		case 1:
			l.Soft = seconds
		}
	}
	if !ok || n != 2 {
		return TimeLimit{}, false
	}
	return l, true
}

func (s *scanner) strings() (list []string, ok bool) {
	if s.peek() != '[' {
		s.skip()
		return nil, false
	}
	s.open('[')
	ok = true
	for n := 0; s.next(n, ']'); n++ {
		item, isText := s.str()
		if ok = ok && isText; ok {
			list = append(list, item)
		}
	}
	if !ok {
		return nil, false
	}
	return list, true
}

// rawMap reads an object and leaves its values as they are. An empty one is nil.
func (s *scanner) rawMap() (m map[string]json.RawMessage, ok bool) {
	if s.peek() != '{' {
		s.skip()
		return nil, false
	}
	s.open('{')
	for n := 0; ; n++ {
		key, ok := s.member(n)
		if !ok {
			return m, !s.broken
		}
		if m == nil {
			m = make(map[string]json.RawMessage)
		}
		start, end, _ := s.skip()
		m[key] = json.RawMessage(s.text[start:end])
	}
}

// headerWriter writes the members of a headers object.
type headerWriter struct {
	dst  []byte
	h    *Headers
	all  bool // write null for what is not set
	some bool // a member has been written
}

// appendHeaders appends the headers as one JSON object, as AppendEnvelope writes them.
func appendHeaders(dst []byte, h *Headers) []byte {
	w := headerWriter{dst: append(dst, '{'), h: h, all: h.Task != ""}
	w.text("lang", h.Lang)
	w.text("task", h.Task)
	w.text("id", h.ID)
	w.text("shadow", h.Shadow)
	w.text("eta", h.ETA)
	w.text("expires", h.Expires)
	w.text("group", h.Group)
	if h.GroupIndex != nil && w.name("group_index", true) {
		w.dst = strconv.AppendInt(w.dst, int64(*h.GroupIndex), 10)
	} else if h.GroupIndex == nil && w.name("group_index", false) {
		w.dst = append(w.dst, "null"...)
	}
	w.number("retries", h.Retries)
	if w.name("timelimit", h.TimeLimit != TimeLimit{}) {
		w.dst = appendTimeLimit(w.dst, h.TimeLimit)
	}
	w.text("root_id", h.RootID)
	w.text("parent_id", h.ParentID)
	w.text("argsrepr", h.ArgsRepr)
	w.text("kwargsrepr", h.KwargsRepr)
	w.text("origin", h.Origin)
	if h.IgnoreResult != nil && w.name("ignore_result", true) {
		w.dst = strconv.AppendBool(w.dst, *h.IgnoreResult)
	}
	w.number("replaced_task_nesting", h.ReplacedTaskNesting)
	if w.name("stamped_headers", len(h.StampedHeaders) > 0) {
		w.dst = appendStrings(w.dst, h.StampedHeaders)
	}
	if w.name("stamps", len(h.Stamps) > 0) {
		w.dst = appendStamps(w.dst, h.Stamps, h.StampedHeaders)
	}
	if h.Compression != "" {
		w.text("compression", h.Compression)
	}
	for _, e := range h.Extra {
		if !IsStandardHeader(e.Name) || slices.Contains(h.Malformed, e.Name) {
			w.comma()
			w.dst = appendMember(w.dst, e)
		}
	}
	if h.Redelivered && w.name("redelivered", true) {
		w.dst = append(w.dst, "true"...)
	}
	return append(w.dst, '}')
}

func (w *headerWriter) comma() {
	if w.some {
		w.dst = append(w.dst, ", "...)
	}
	w.some = true
}

// name writes the name of a member and reports whether its value is to follow. A malformed header is not written: its
// bytes are among the extra ones.
func (w *headerWriter) name(name string, set bool) bool {
	if !set && !w.all || len(w.h.Malformed) > 0 && slices.Contains(w.h.Malformed, name) {
		return false
	}
	w.comma()
	w.dst = append(w.dst, '"')
	w.dst = append(w.dst, name...)
	w.dst = append(w.dst, `": `...)
	return true
}

func (w *headerWriter) text(name, value string) {
	if !w.name(name, value != "") {
		return
	}
	if value == "" {
		w.dst = append(w.dst, "null"...)
		return
	}
	w.dst = serialization.AppendString(w.dst, value)
}

func (w *headerWriter) number(name string, value int) {
	if w.name(name, value != 0) {
		w.dst = strconv.AppendInt(w.dst, int64(value), 10)
	}
}

func appendTimeLimit(dst []byte, l TimeLimit) []byte {
	dst = append(dst, '[')
	dst = appendSeconds(dst, l.Hard)
	dst = append(dst, ", "...)
	dst = appendSeconds(dst, l.Soft)
	return append(dst, ']')
}

func appendStrings(dst []byte, list []string) []byte {
	if len(list) == 0 {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for i, item := range list {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = serialization.AppendString(dst, item)
	}
	return append(dst, ']')
}

// appendStamps writes the stamps in the order in which they are named, then those that are not named.
func appendStamps(dst []byte, stamps map[string]json.RawMessage, named []string) []byte {
	names := make([]string, 0, len(stamps))
	written := make(map[string]bool, len(stamps))
	for _, name := range named {
		if _, ok := stamps[name]; ok && !written[name] {
			names = append(names, name)
			written[name] = true
		}
	}
	if len(names) < len(stamps) {
		for _, name := range slices.Sorted(maps.Keys(stamps)) {
			if !written[name] {
				names = append(names, name)
			}
		}
	}
	dst = append(dst, '{')
	for i, name := range names {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = appendMember(dst, Header{name, stamps[name]})
	}
	return append(dst, '}')
}
