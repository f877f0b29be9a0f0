package protocol

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"sync"
)

// NewID returns a new random (version 4) UUID in its text form, as Celery makes ids of tasks, groups and deliveries.
func NewID() string {
	var text [36]byte
	return string(appendID(text[:0]))
}

// idPool holds random bytes that were drawn and not used yet: a system call for each id would cost more than all the
// rest of writing a message.
var idPool = sync.Pool{New: func() any { return new(idSource) }}

type idSource struct {
	bytes [512]byte
	used  int // 0: none drawn yet
}

func appendID(dst []byte) []byte {
	p := idPool.Get().(*idSource)
	if p.used == 0 || p.used == len(p.bytes) {
		rand.Read(p.bytes[:]) // never returns an error
		p.used = 0
	}
	var u [16]byte
	copy(u[:], p.bytes[p.used:])
	p.used += len(u)
	idPool.Put(p)
	return formatID(dst, u, 4)
}

func formatID(dst []byte, u [16]byte, version byte) []byte {
	u[6] = u[6]&0x0F | version<<4
	u[8] = u[8]&0x3F | 0x80
	dst = hex.AppendEncode(dst, u[:4])
	for _, part := range [...][]byte{u[4:6], u[6:8], u[8:10], u[10:]} {
		dst = append(dst, '-')
		dst = hex.AppendEncode(dst, part)
	}
	return dst
}

// DerivedID is an id that follows from names: a UUID of version 8, the same for the same names.
func DerivedID(names ...string) string {
	h := sha256.New()
	for _, name := range names {
		_, _ = h.Write(strconv.AppendInt(nil, int64(len(name)), 10)) // so that no two lists of names are written alike
		_, _ = h.Write([]byte{':'})
		_, _ = h.Write([]byte(name))
	}
	var id [16]byte
	copy(id[:], h.Sum(nil))
	return string(formatID(nil, id, 8))
}

// NumberedID is an id made of a UUID, whose first eight digits give way to a number: those of one UUID ascend, as text, with their
// numbers.
func NumberedID(id string, n int) string {
	number := hex.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(n)))
	if len(id) < 36 {
		return number + "-" + id
	}
	return number + id[8:]
}
