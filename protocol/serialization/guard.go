package serialization

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// checkMsgPack walks over a msgpack document without allocating, so that the library behind it, which trusts what
// lengths declare, sees none that goes beyond the input, nest too deep, use a container or bytes as key of a map, or
// hold an extension type. What follows the document is an error, as in Python.
func checkMsgPack(data []byte) error {
	g := guard{rest: data}
	if err := g.value(0); err != nil {
		return err
	}
	if len(g.rest) > 0 {
		return errTrailing
	}
	return nil
}

type guard struct {
	rest  []byte
	count int // values so far
}

var (
	errKey = errors.New("key of a map is neither text nor a number")
	errExt = errors.New("extension types are not supported")
)

func (g *guard) value(depth int) error {
	if g.count++; g.count > MaxValues {
		return errTooMany
	}
	if len(g.rest) == 0 {
		return errTruncate
	}
	code := g.rest[0]
	g.rest = g.rest[1:]
	switch {
	case code <= 0x7f || code >= 0xe0: // small ints
		return nil
	case code <= 0x8f:
		return g.items(uint64(code&0x0f), true, depth)
	case code <= 0x9f:
		return g.items(uint64(code&0x0f), false, depth)
	case code <= 0xbf:
		return g.text(uint64(code & 0x1f))
	}
	switch code {
	case 0xc0, 0xc2, 0xc3: // nil, false, true
		return nil
	case 0xc4, 0xc5, 0xc6: // bin
		return g.sized(1<<(code-0xc4), g.skip)
	case 0xca, 0xce, 0xd2: // four bytes of number
		return g.skip(4)
	case 0xcb, 0xcf, 0xd3:
		return g.skip(8)
	case 0xcc, 0xd0:
		return g.skip(1)
	case 0xcd, 0xd1:
		return g.skip(2)
	case 0xd9, 0xda, 0xdb: // str
		return g.sized(1<<(code-0xd9), g.text)
	case 0xdc, 0xdd: // array
		return g.sized(2<<(code-0xdc), func(n uint64) error { return g.items(n, false, depth) })
	case 0xde, 0xdf: // map
		return g.sized(2<<(code-0xde), func(n uint64) error { return g.items(n, true, depth) })
	case 0xc1:
		return errors.New("code c1 is never used")
	}
	return errExt
}

// sized reads a big-endian length of width bytes and hands it on.
func (g *guard) sized(width int, then func(n uint64) error) error {
	if len(g.rest) < width {
		return errTruncate
	}
	var n uint64
	for _, b := range g.rest[:width] {
		n = n<<8 | uint64(b)
	}
	g.rest = g.rest[width:]
	return then(n)
}

func (g *guard) skip(n uint64) error {
	if n > uint64(len(g.rest)) {
		return errTruncate
	}
	g.rest = g.rest[n:]
	return nil
}

func (g *guard) text(n uint64) error {
	if n > uint64(len(g.rest)) {
		return errTruncate
	}
	if !utf8.Valid(g.rest[:n]) { // Python's unpackb(raw=False) raises
		return errUTF8
	}
	g.rest = g.rest[n:]
	return nil
}

// items walks over the n members of an array, or over n pairs of a map.
func (g *guard) items(n uint64, pairs bool, depth int) error {
	if pairs {
		g.count += dictCost
	}
	if depth >= maxBinaryDepth {
		return errTooDeep
	}
	least := n // every member takes a byte at least
	if pairs {
		least = 2 * n
	}
	if least > uint64(len(g.rest)) {
		return fmt.Errorf("%w: %d members declared", errTruncate, n)
	}
	for range n {
		if pairs {
			if len(g.rest) == 0 {
				return errTruncate
			}
			if !isKey(g.rest[0]) {
				return errKey
			}
			if err := g.value(depth + 1); err != nil {
				return err
			}
		}
		if err := g.value(depth + 1); err != nil {
			return err
		}
	}
	return nil
}

// isKey reports whether a value with this first byte may be a key: all scalars but bytes.
func isKey(code byte) bool {
	switch {
	case code <= 0x7f, code >= 0xe0, code >= 0xa0 && code <= 0xbf:
		return true
	case code == 0xc0, code == 0xc2, code == 0xc3, code >= 0xca && code <= 0xd3, code >= 0xd9 && code <= 0xdb:
		return true
	}
	return false
}
