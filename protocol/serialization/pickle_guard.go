package serialization

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/gelery/gelery/protocol/value"
)

// checkPickle walks over the opcodes of a pickle, executing none. It refuses the decimal text of a huge integer, which
// takes the library quadratic time, and objects, of which it can still name the class. What else is wrong it leaves to
// the library.
func checkPickle(data []byte) error {
	w := pickleWalker{rest: data}
	for len(w.rest) > 0 {
		op := w.rest[0]
		w.rest = w.rest[1:]
		if op == '.' {
			return nil
		}
		if err := w.step(op); err != nil {
			return err
		}
	}
	return errTruncate
}

type pickleWalker struct {
	rest  []byte
	texts [2][]byte // the last two
	class []byte
}

func (w *pickleWalker) step(op byte) error {
	switch op {
	case 0x8f, 0x90, 0x91:
		return errors.New("pickle of a set is not supported in protocol 4 and later")
	case 0x81, 0x92, 'b', 'i', 'o': // make an object, give it its state
		return fmt.Errorf("pickle of class %.100q is not supported", w.class)
	case 0x93: // the class two texts name
		w.class = bytes.Join(w.texts[:], []byte{'.'})
		return nil
	case 'c':
		module, err := w.line()
		if err != nil {
			return err
		}
		name, err := w.line()
		w.class = bytes.Join([][]byte{module, name}, []byte{'.'})
		return err
	case 'I', 'L':
		text, err := w.line()
		if len(text) > value.MaxDigits+3 { // sign, L and carriage return
			return errDigits
		}
		return err
	case 'F', 'S', 'V', 'P', 'g', 'p':
		_, err := w.line()
		return err
	}
	size, ok := argumentSize(op, w.rest)
	if !ok || size > len(w.rest) {
		return errTruncate
	}
	switch op {
	case 'X', 0x8c:
		w.texts[0], w.texts[1] = w.texts[1], w.rest[lengthWidth(op):size]
	}
	w.rest = w.rest[size:]
	return nil
}

func (w *pickleWalker) line() ([]byte, error) {
	n := bytes.IndexByte(w.rest, '\n')
	if n < 0 {
		return nil, errTruncate
	}
	line := w.rest[:n]
	w.rest = w.rest[n+1:]
	return line, nil
}

// argumentSize returns the size of what follows an opcode that is not followed by lines.
func argumentSize(op byte, rest []byte) (size int, ok bool) {
	switch op {
	case 'K', 'h', 'q', 0x80, 0x82:
		return 1, true
	case 'M', 0x83:
		return 2, true
	case 'J', 'j', 'r', 0x84:
		return 4, true
	case 'G', 0x95:
		return 8, true
	}
	width := lengthWidth(op)
	if len(rest) < width {
		return 0, false
	}
	var buf [8]byte
	copy(buf[:], rest[:width])
	n := binary.LittleEndian.Uint64(buf[:])
	if n > uint64(len(rest)-width) {
		return 0, false
	}
	return width + int(n), true
}

// lengthWidth is the width of the length before data of variable size; zero for an opcode without any.
func lengthWidth(op byte) int {
	switch op {
	case 'U', 'C', 0x8a, 0x8c:
		return 1
	case 'T', 'X', 'B', 0x8b:
		return 4
	case 0x8d, 0x8e, 0x96:
		return 8
	}
	return 0
}
