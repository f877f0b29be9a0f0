package protocol

// redeliveredFlag finds, in one object of an envelope, the value of its key "redelivered" or the place for one.
type redeliveredFlag struct {
	start, end int  // the value; equal when there is none: the object's closing brace
	empty      bool // the object has no member
}

// MarkRedelivered returns the envelope with the two flags kombu sets when it gives a message back:
// headers.redelivered and properties.delivery_info.redelivered. Every other byte stays as it is. Missing headers are
// added. The error is an *EnvelopeError, for what is not an envelope.
func MarkRedelivered(raw []byte) ([]byte, error) {
	s := newScanner(raw)
	var headers, info redeliveredFlag
	hasHeaders, hasInfo, empty := false, false, true
	s.open('{')
	for n := 0; ; n++ {
		key, ok := s.member(n)
		if !ok {
			break
		}
		empty = false
		switch key {
		case "headers":
			headers, hasHeaders = s.redelivered(), true
		case "properties":
			info, hasInfo = s.deliveryInfoFlag()
		default:
			s.skip()
		}
	}
	closing := s.pos - 1
	s.end()
	if !hasInfo {
		s.defect("no properties.delivery_info", 0)
	}
	if s.err != nil {
		return nil, s.err
	}
	out := make([]byte, 0, len(raw)+80)
	from := 0
	set := func(f redeliveredFlag) {
		out = append(out, raw[from:f.start]...)
		if f.start == f.end {
			if !f.empty {
				out = append(out, ", "...)
			}
			out = append(out, `"redelivered": `...)
		}
		out = append(out, "true"...)
		from = f.end
	}
	switch {
	case !hasHeaders:
		set(info)
		out = append(out, raw[from:closing]...)
		if !empty {
			out = append(out, ", "...)
		}
		out = append(out, `"headers": {"redelivered": true}`...)
		from = closing
	case headers.start < info.start:
		set(headers)
		set(info)
	default:
		set(info)
		set(headers)
	}
	return append(out, raw[from:]...), nil
}

// redelivered walks the object that follows.
func (s *scanner) redelivered() redeliveredFlag {
	f := redeliveredFlag{empty: true}
	found := false
	s.open('{')
	for n := 0; ; n++ {
		name, ok := s.member(n)
		if !ok {
			break
		}
		f.empty = false
		start, end, _ := s.skip()
		if name == "redelivered" {
			f.start, f.end, found = start, end, true
		}
	}
	if !found {
		f.start, f.end = s.pos-1, s.pos-1
	}
	return f
}

// deliveryInfoFlag walks the properties object that follows.
func (s *scanner) deliveryInfoFlag() (f redeliveredFlag, ok bool) {
	s.open('{')
	for n := 0; ; n++ {
		name, more := s.member(n)
		if !more {
			return f, ok
		}
		if name == "delivery_info" {
			f, ok = s.redelivered(), true
		} else {
			s.skip()
		}
	}
}
