package protocol

// place is where, in one object of an envelope, the value of a key stands, or where the key can be put.
type place struct {
	start, end int  // the value; equal when there is none: the object's closing brace
	empty      bool // the object has no member
}

// places are where an envelope is changed when it is marked.
type places struct {
	headers    place // of one header
	info       place // of properties.delivery_info.redelivered
	envelope   place // for headers, where there are none
	hasHeaders bool
}

// MarkRedelivered returns the envelope with the two flags kombu sets when it gives a message back:
// headers.redelivered and properties.delivery_info.redelivered. Every other byte stays as it is. Missing headers are
// added. The error is an *EnvelopeError, for what is not an envelope.
func MarkRedelivered(raw []byte) ([]byte, error) {
	const name, value = "redelivered", "true"
	p, err := findPlaces(raw, name)
	if err != nil {
		return nil, err
	}
	out := marking{raw: raw, out: make([]byte, 0, len(raw)+80)}
	if p.hasHeaders && p.headers.start < p.info.start {
		out.header(p, name, value)
		out.set(p.info, name, value)
	} else {
		out.set(p.info, name, value)
		out.header(p, name, value)
	}
	return out.end(), nil
}

// findPlaces walks an envelope and finds where a header is to be set. Of what is there twice, the last counts.
func findPlaces(raw []byte, header string) (places, error) {
	s := newScanner(raw)
	p := places{envelope: place{empty: true}}
	hasInfo := false
	s.open('{')
	for n := 0; ; n++ {
		key, ok := s.member(n)
		if !ok {
			break
		}
		p.envelope.empty = false
		switch key {
		case "headers":
			p.headers, p.hasHeaders = s.place(header), true
		case "properties":
			p.info, hasInfo = s.deliveryInfoPlace()
		default:
			s.skip()
		}
	}
	p.envelope.start, p.envelope.end = s.pos-1, s.pos-1
	s.end()
	if !hasInfo {
		s.defect("no properties.delivery_info", 0)
	}
	if s.err != nil {
		return p, s.err
	}
	return p, nil
}

// place walks the object that follows and finds a key in it.
func (s *scanner) place(key string) place {
	p := place{empty: true}
	found := false
	s.open('{')
	for n := 0; ; n++ {
		name, ok := s.member(n)
		if !ok {
			break
		}
		p.empty = false
		start, end, _ := s.skip()
		if name == key {
			p.start, p.end, found = start, end, true
		}
	}
	if !found {
		p.start, p.end = s.pos-1, s.pos-1
	}
	return p
}

// deliveryInfoPlace walks the properties object that follows.
func (s *scanner) deliveryInfoPlace() (p place, ok bool) {
	s.open('{')
	for n := 0; ; n++ {
		name, more := s.member(n)
		if !more {
			return p, ok
		}
		if name == "delivery_info" {
			p, ok = s.place("redelivered"), true
		} else {
			s.skip()
		}
	}
}

// marking copies an envelope and puts values into it, in the order of their places.
type marking struct {
	raw, out []byte
	from     int // what is not copied yet
}

// set puts a value in the place of the one that is there, or adds it under its key.
func (m *marking) set(p place, key, value string) {
	m.out = append(m.out, m.raw[m.from:p.start]...)
	if p.start == p.end {
		if !p.empty {
			m.out = append(m.out, ", "...)
		}
		m.out = append(m.out, '"')
		m.out = append(m.out, key...)
		m.out = append(m.out, `": `...)
	}
	m.out = append(m.out, value...)
	m.from = p.end
}

// header sets a header, with the headers where there are none.
func (m *marking) header(p places, name, value string) {
	if p.hasHeaders {
		m.set(p.headers, name, value)
	} else {
		m.set(p.envelope, "headers", `{"`+name+`": `+value+`}`)
	}
}

func (m *marking) end() []byte { return append(m.out, m.raw[m.from:]...) }
