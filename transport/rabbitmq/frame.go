package rabbitmq

import "encoding/binary"

// The frames of AMQP 0-9-1, as far as they concern us:
//
//	type(1) channel(2) size(4) payload(size) 0xCE
//
// and the payload of a content header:
//
//	class(2) weight(2) body size(8) flags(2), then what the flags name: content type, content encoding, headers, ...
const (
	frameMethod   = 1
	frameHeader   = 2
	frameEnd      = 0xCE
	frameStart    = 7              // bytes before the payload
	frameOverhead = frameStart + 1 // bytes beside the payload

	flagContentType     = 0x8000
	flagContentEncoding = 0x4000
	flagHeaders         = 0x2000
	flagDeliveryMode    = 0x1000
	flagPriority        = 0x0800
	flagMore            = 0x0001 // another word of flags follows; nobody has any to put there

	flagsAt      = frameStart + 12
	propertiesAt = flagsAt + 2

	// maxGathered is the largest frame, in bytes, that is looked into. A broker sends none beyond the negotiated size,
	// but for a content header to which it has added headers of its own.
	maxGathered = 256 << 10
	// keptBuffer is the largest buffer that stays allocated between two frames.
	keptBuffer = 64 << 10
)

// A header table is hidden from amqp091-go in a table of one entry, a byte array: rawKey for a whole one, cutKey for
// one that had to be cut off at its end to fit the frame.
const (
	rawKey     = "\x00"
	cutKey     = "\x01"
	wrapLength = 1 + len(rawKey) + 1 + 4 // bytes before the table: length of the key, key, type, length
)

// framer follows the frames of one direction of a stream. Most pass as they come; content headers, and what else
// gathers asks for, are rewritten as a whole.
type framer struct {
	gathers func(kind byte, channel uint16) bool
	rewrite func(dst, frame []byte) []byte // appends the frame, changed or not

	pass int64  // bytes of the stream that pass before the next frame begins
	part []byte // the beginning of the frame that begins now, as far as it is here
	need int    // how long part must become; 0 before the frame is known
	out  []byte // the last rewritten frame
}

// take consumes what p has of the beginning of a frame, when nothing is left to pass. Once the frame is known it
// returns the bytes to send on, valid until the next call; the rest of a frame that passes is then in f.pass.
func (f *framer) take(p []byte) (n int, out []byte) {
	want := f.need
	if want == 0 {
		want = frameStart
	}
	n = min(want-len(f.part), len(p))
	f.part = append(f.part, p[:n]...)
	if len(f.part) < want {
		return n, nil
	}
	if f.need == 0 {
		size := int64(binary.BigEndian.Uint32(f.part[3:]))
		if size+frameOverhead > maxGathered || !f.gathers(f.part[0], binary.BigEndian.Uint16(f.part[1:])) {
			f.out = append(f.out[:0], f.part...)
			f.part = f.part[:0]
			f.pass = size + 1
			return n, f.out
		}
		f.need = int(size) + frameOverhead
		more, out := f.take(p[n:])
		return n + more, out
	}
	f.out = f.rewrite(shrunk(f.out), f.part)
	f.part, f.need = shrunk(f.part), 0
	return n, f.out
}

// shrunk empties a buffer, and lets a large one go.
func shrunk(b []byte) []byte {
	if cap(b) > keptBuffer {
		return nil
	}
	return b[:0]
}

// headerTable returns where the header table of a content header frame begins, its length included, and where it ends.
// Not ok: the frame has none, or is malformed.
func headerTable(frame []byte) (start, end int, ok bool) {
	if len(frame) < propertiesAt+1 || frame[len(frame)-1] != frameEnd {
		return 0, 0, false
	}
	payload := frame[:len(frame)-1]
	flags := binary.BigEndian.Uint16(frame[flagsAt:])
	if flags&flagHeaders == 0 || flags&flagMore != 0 {
		return 0, 0, false
	}
	start = propertiesAt
	for _, flag := range [...]uint16{flagContentType, flagContentEncoding} {
		if flags&flag == 0 {
			continue
		}
		if start >= len(payload) {
			return 0, 0, false
		}
		start += 1 + int(payload[start])
	}
	if start+4 > len(payload) {
		return 0, 0, false
	}
	size := int64(binary.BigEndian.Uint32(payload[start:]))
	if size > int64(len(payload)-start-4) {
		return 0, 0, false
	}
	return start, start + 4 + int(size), true
}

// appendWrapped appends a content header frame with its header table hidden. A frame that would become larger than
// frameMax loses the end of its table: amqp091-go closes the connection on a larger one, the broker hands the message
// out again, and the worker never gets past it. A malformed frame is appended as it is.
func appendWrapped(dst, frame []byte, frameMax int) []byte {
	start, end, ok := headerTable(frame)
	if !ok {
		return append(dst, frame...)
	}
	raw, key := frame[start+4:end], rawKey
	if over := len(frame) + wrapLength - frameMax; over > 0 {
		if over > len(raw) {
			return append(dst, frame...)
		}
		raw, key = raw[:len(raw)-over], cutKey
	}
	at := len(dst)
	dst = append(dst, frame[:start]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(wrapLength+len(raw)))
	dst = append(dst, byte(len(key)))
	dst = append(append(dst, key...), 'x')
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(raw)))
	dst = append(append(dst, raw...), frame[end:]...)
	putFrameSize(dst[at:])
	return dst
}

// appendUnwrapped appends a content header frame with the table that appendWrapped, or publishing, has hidden. Such a
// frame also gets the priority 0 that Celery always writes and amqp091-go leaves out. Any other is appended as it is.
func appendUnwrapped(dst, frame []byte) []byte {
	start, end, ok := headerTable(frame)
	if !ok || end-start < 4+wrapLength {
		return append(dst, frame...)
	}
	entry := frame[start+4 : end]
	raw := entry[wrapLength:]
	if entry[0] != byte(len(rawKey)) || entry[1] != rawKey[0] || entry[2] != 'x' ||
		binary.BigEndian.Uint32(entry[3:]) != uint32(len(raw)) {
		return append(dst, frame...)
	}
	at := len(dst)
	dst = append(dst, frame[:start]...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(raw)))
	dst = append(dst, raw...)
	rest := frame[end:]
	if flags := binary.BigEndian.Uint16(frame[flagsAt:]); flags&flagPriority == 0 {
		binary.BigEndian.PutUint16(dst[at+flagsAt:], flags|flagPriority)
		if flags&flagDeliveryMode != 0 {
			dst = append(dst, rest[0])
			rest = rest[1:]
		}
		dst = append(dst, 0)
	}
	dst = append(dst, rest...)
	putFrameSize(dst[at:])
	return dst
}

func putFrameSize(frame []byte) {
	binary.BigEndian.PutUint32(frame[3:], uint32(len(frame)-frameOverhead))
}

// authenticationFailureClose makes RabbitMQ say that the password is wrong. Without it the broker closes the connection
// after three seconds of silence. amqp091-go does not ask for it, nor let us.
const authenticationFailureClose = "\x1cauthentication_failure_close" + "t\x01"

// appendStartOK appends a connection.start-ok with that capability among the client's. Any other frame, or one without
// capabilities, is appended as it is.
func appendStartOK(dst, frame []byte) []byte {
	const class, method, tableAt = 10, 11, frameStart + 8
	if len(frame) <= tableAt || binary.BigEndian.Uint16(frame[frameStart:]) != class ||
		binary.BigEndian.Uint16(frame[frameStart+2:]) != method {
		return append(dst, frame...)
	}
	size := int64(binary.BigEndian.Uint32(frame[tableAt-4:]))
	if size > int64(len(frame)-tableAt) {
		return append(dst, frame...)
	}
	t := tableReader{raw: frame[tableAt : tableAt+size]}
	for {
		name, f, ok := t.next()
		if !ok {
			return append(dst, frame...)
		}
		if string(name) != "capabilities" || f.kind != 'F' {
			continue
		}
		at, end := len(dst), tableAt+t.pos
		dst = append(append(append(dst, frame[:end]...), authenticationFailureClose...), frame[end:]...)
		more := uint32(len(authenticationFailureClose))
		binary.BigEndian.PutUint32(dst[at+tableAt-4:], uint32(size)+more)
		binary.BigEndian.PutUint32(dst[at+end-len(f.data)-4:], uint32(len(f.data))+more)
		putFrameSize(dst[at:])
		return dst
	}
}

// tunedFrameMax reads the frame size that connection.tune-ok agrees to. Not ok: the frame is another one.
func tunedFrameMax(frame []byte) (size uint32, ok bool) {
	const class, method = 10, 31
	if len(frame) != frameOverhead+12 || frame[0] != frameMethod ||
		binary.BigEndian.Uint16(frame[frameStart:]) != class || binary.BigEndian.Uint16(frame[frameStart+2:]) != method {
		return 0, false
	}
	return binary.BigEndian.Uint32(frame[frameStart+6:]), true
}
