package compression

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// xzDict is the dictionary we compress with: bodies are small, and readers allocate all of it.
const xzDict = 1 << 20

func encodeXZ(body []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := xz.WriterConfig{DictCap: min(xzDict, max(lzma.MinDictCap, len(body)))}.NewWriter(&out)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	err = w.Close()
	return out.Bytes(), err
}

var xzMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0}

// decodeXZ reads the .xz container and, as Python's lzma does, the older .lzma file.
func decodeXZ(body []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(body, xzMagic) {
		return decodeLZMA(body, limit)
	}
	fitted, err := fitXZ(body, limit)
	if err != nil {
		return nil, err
	}
	r, err := xz.ReaderConfig{DictCap: lzma.MinDictCap}.NewReader(bytes.NewReader(fitted))
	if err != nil {
		return nil, err
	}
	return readLimited(r, len(body), limit)
}

// decodeLZMA lowers the declared dictionary to what the content can fill before the library allocates it.
func decodeLZMA(body []byte, limit int) ([]byte, error) {
	const header = 13 // properties, dictionary size, content size
	if len(body) < header {
		return nil, errXZ
	}
	need := uint64(limit)
	if size := binary.LittleEndian.Uint64(body[5:]); size != 1<<64-1 {
		if size > need {
			return nil, &TooLargeError{Limit: limit}
		}
		need = size
	}
	dict := uint64(binary.LittleEndian.Uint32(body[1:]))
	fitted := bytes.Clone(body)
	binary.LittleEndian.PutUint32(fitted[1:], uint32(max(lzma.MinDictCap, min(dict, need))))
	r, err := lzma.ReaderConfig{DictCap: max(lzma.MinDictCap, limit)}.NewReader(bytes.NewReader(fitted))
	if err != nil {
		return nil, err
	}
	return readLimited(r, len(body), limit)
}

var errXZ = errors.New("invalid or truncated xz data")

// fitXZ walks over the containers in body, which tells the size of the content without decompressing any, and returns
// a copy in which no block declares a larger dictionary than its content can fill. The library allocates what is
// declared, up to 4 GiB; Python declares 8 MiB for the smallest body.
func fitXZ(body []byte, limit int) ([]byte, error) {
	w := xzWalker{data: bytes.Clone(body)}
	for w.pos < len(w.data) {
		if err := w.stream(limit); err != nil {
			return nil, err
		}
		for len(w.data)-w.pos >= 4 && binary.LittleEndian.Uint32(w.data[w.pos:]) == 0 { // padding between streams
			w.pos += 4
		}
	}
	return w.data, nil
}

type xzWalker struct {
	data  []byte
	pos   int
	total int // bytes of content so far
}

// take returns the next n bytes, nil if there are fewer.
func (w *xzWalker) take(n int) []byte {
	if n > len(w.data)-w.pos {
		return nil
	}
	w.pos += n
	return w.data[w.pos-n : w.pos : w.pos]
}

func (w *xzWalker) stream(limit int) error {
	header := w.take(12)
	if header == nil || !bytes.HasPrefix(header, xzMagic) {
		return errXZ
	}
	checkSize := map[byte]int{0: 0, 1: 4, 4: 8, 10: 32} // none, CRC32, CRC64, SHA-256
	check, ok := checkSize[header[7]]
	if !ok {
		return errors.New("unknown kind of check")
	}
	for {
		if w.pos >= len(w.data) {
			return errXZ
		}
		if w.data[w.pos] == 0 { // in place of a header size: the index follows the last block
			return w.index()
		}
		if err := w.block(check, limit); err != nil {
			return err
		}
	}
}

// block walks over one block and lowers the dictionary its header declares.
func (w *xzWalker) block(check, limit int) error {
	header := w.take((int(w.data[w.pos]) + 1) * 4)
	if header == nil {
		return errXZ
	}
	start, before := w.pos, w.total
	if err := w.chunks(limit); err != nil {
		return err
	}
	for (w.pos-start)%4 != 0 { // a block is padded before its check
		if w.take(1) == nil {
			return errXZ
		}
	}
	if w.take(check) == nil {
		return errXZ
	}
	return fitDict(header, w.total-before)
}

// chunks walks over LZMA2 chunks, which say how large they are packed and unpacked.
func (w *xzWalker) chunks(limit int) error {
	for {
		control := w.take(1)
		if control == nil {
			return errXZ
		}
		unpacked, packed := 0, 0
		switch c := control[0]; {
		case c == 0:
			return nil
		case c <= 2: // stored
			size := w.take(2)
			if size == nil {
				return errXZ
			}
			unpacked = int(binary.BigEndian.Uint16(size)) + 1
			packed = unpacked
		case c >= 0x80:
			size := w.take(4)
			if size == nil {
				return errXZ
			}
			unpacked = int(c&0x1f)<<16 + int(binary.BigEndian.Uint16(size)) + 1
			packed = int(binary.BigEndian.Uint16(size[2:])) + 1
			if c >= 0xc0 { // new properties
				packed++
			}
		default:
			return errXZ
		}
		if w.take(packed) == nil {
			return errXZ
		}
		if w.total += unpacked; w.total > limit {
			return &TooLargeError{Limit: limit}
		}
	}
}

// fitDict rewrites the dictionary size in a block header, and its checksum, if the content is smaller.
func fitDict(header []byte, content int) error {
	crcAt := len(header) - 4
	if crcAt < 2 || crc32.ChecksumIEEE(header[:crcAt]) != binary.LittleEndian.Uint32(header[crcAt:]) {
		return errXZ
	}
	flags, pos := header[1], 2
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // sizes packed and unpacked
		for present && pos < crcAt {
			present = header[pos]&0x80 != 0
			pos++
		}
	}
	const lzma2 = 0x21
	if flags&0x3f != 0 || pos+3 > crcAt || header[pos] != lzma2 || header[pos+1] != 1 {
		return errors.New("only the LZMA2 filter is supported")
	}
	size := &header[pos+2]
	for code := byte(0); code < *size; code++ {
		if dictSize(code) >= content {
			*size = code
			binary.LittleEndian.PutUint32(header[crcAt:], crc32.ChecksumIEEE(header[:crcAt]))
			break
		}
	}
	return nil
}

// dictSize is the size a code of the block header stands for: 4 KiB, 6 KiB, 8 KiB, 12 KiB and so on.
func dictSize(code byte) int { return (2 | int(code&1)) << (code/2 + 11) }

// index walks over the index and the footer. Their content is the library's to check.
func (w *xzWalker) index() error {
	start := w.pos
	w.pos++
	records, ok := w.varint()
	if !ok || records > uint64(len(w.data)) {
		return errXZ
	}
	for range 2 * records { // sizes packed and unpacked
		if _, ok := w.varint(); !ok {
			return errXZ
		}
	}
	for (w.pos-start)%4 != 0 {
		w.pos++
	}
	if w.take(4+12) == nil { // checksum, footer
		return errXZ
	}
	return nil
}

func (w *xzWalker) varint() (n uint64, ok bool) {
	if w.pos > len(w.data) {
		return 0, false
	}
	n, size := binary.Uvarint(w.data[w.pos:])
	w.pos += max(size, 0)
	return n, size > 0
}
