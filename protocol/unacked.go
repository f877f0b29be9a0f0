package protocol

// SplitUnacked takes apart a value of kombu's unacked hash, [envelope, exchange, routing key]. The envelope is returned
// as its bytes, unread but for its being JSON; a null exchange or routing key is "". The error is an *EnvelopeError.
func SplitUnacked(value []byte) (envelope []byte, exchange, routingKey string, err error) {
	s := newScanner(value)
	s.open('[')
	n := 0
	for ; s.next(n, ']'); n++ {
		switch n {
		case 0:
			start, end, _ := s.skip()
			envelope = value[start:end]
		case 1:
			exchange, _ = s.str()
		case 2:
			routingKey, _ = s.str()
		default:
			s.skip()
		}
	}
	if s.end() && n != 3 {
		s.defect("not [envelope, exchange, routing key]", 0)
	}
	if s.err != nil {
		return nil, "", "", s.err
	}
	return envelope, exchange, routingKey, nil
}
