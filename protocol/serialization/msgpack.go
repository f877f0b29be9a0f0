package serialization

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
	"github.com/vmihailenco/msgpack/v5/msgpcode"

	"github.com/gelery/gelery/protocol/value"
)

type msgpackSerializer struct{}

// MsgPack is kombu's msgpack: text is str, bytes are bin, no extension types. Dates, times, decimals and UUIDs are
// written as text, because Python refuses to pack them and would read msgpack's own timestamp as no datetime.
var MsgPack Serializer = msgpackSerializer{}

func (msgpackSerializer) Name() string            { return "msgpack" }
func (msgpackSerializer) ContentType() string     { return "application/x-msgpack" }
func (msgpackSerializer) ContentEncoding() string { return "binary" }

// Append writes integers in their shortest form. A string that is not UTF-8 is written as bytes. An integer of more
// than 64 bits is an error, as in Python.
func (s msgpackSerializer) Append(dst []byte, v any) ([]byte, error) {
	canonical, err := value.Of(v)
	if err != nil {
		return encoded(nil, s, err)
	}
	out := bytes.NewBuffer(dst)
	e := msgpack.GetEncoder()
	defer msgpack.PutEncoder(e)
	e.Reset(out)
	e.UseCompactInts(true)
	err = packValue(e, canonical, 0)
	return encoded(out.Bytes(), s, err)
}

func packValue(e *msgpack.Encoder, v any, depth int) error {
	switch v := v.(type) {
	case nil:
		return e.EncodeNil()
	case bool:
		return e.EncodeBool(v)
	case int64:
		return e.EncodeInt(v)
	case *big.Int:
		if !v.IsUint64() {
			return errors.New("int of more than 64 bits")
		}
		return e.EncodeUint(v.Uint64())
	case float64:
		return e.EncodeFloat64(v)
	case string:
		return packText(e, v)
	case []byte:
		return e.EncodeBytes(v)
	case []any:
		return packList(e, v, depth)
	case map[string]any:
		return packDict(e, v, depth)
	}
	text, ok := value.AppendText(nil, v)
	if !ok {
		return fmt.Errorf("%T is not a canonical value", v)
	}
	return packText(e, string(text))
}

func packText(e *msgpack.Encoder, s string) error {
	if !utf8.ValidString(s) {
		return e.EncodeBytes([]byte(s))
	}
	return e.EncodeString(s)
}

func packList(e *msgpack.Encoder, list []any, depth int) error {
	if depth >= maxBinaryDepth {
		return errTooDeep
	}
	if err := e.EncodeArrayLen(len(list)); err != nil {
		return err
	}
	for _, v := range list {
		if err := packValue(e, v, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func packDict(e *msgpack.Encoder, dict map[string]any, depth int) error {
	if depth >= maxBinaryDepth {
		return errTooDeep
	}
	if err := e.EncodeMapLen(len(dict)); err != nil {
		return err
	}
	var few [8]string
	for _, key := range sortedKeys(few[:0], dict) {
		if err := packText(e, key); err != nil {
			return err
		}
		if err := packValue(e, dict[key], depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Decode returns bin as bytes and str as string. Keys of maps that are not text become text as in JSON.
func (s msgpackSerializer) Decode(data []byte) (v any, err error) {
	if err := errors.Join(checkSize(data, MaxBody), checkMsgPack(data)); err != nil {
		return decoded(nil, s, err)
	}
	d := msgpack.GetDecoder()
	defer msgpack.PutDecoder(d)
	d.Reset(bytes.NewReader(data))
	defer func() { // the guard should leave nothing to panic about; a library must not end a worker all the same
		if r := recover(); r != nil {
			v, err = decoded(nil, s, fmt.Errorf("msgpack: %v", r))
		}
	}()
	v, err = unpackValue(d)
	return decoded(v, s, err)
}

func unpackValue(d *msgpack.Decoder) (any, error) {
	code, err := d.PeekCode()
	if err != nil {
		return nil, err
	}
	switch {
	case msgpcode.IsString(code):
		return d.DecodeString()
	case msgpcode.IsBin(code):
		return d.DecodeBytes()
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		return unpackList(d)
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		return unpackDict(d)
	}
	switch code {
	case msgpcode.Nil:
		return nil, d.DecodeNil()
	case msgpcode.True, msgpcode.False:
		return d.DecodeBool()
	case msgpcode.Float, msgpcode.Double:
		return d.DecodeFloat64()
	case msgpcode.Uint64:
		u, err := d.DecodeUint64()
		if u > math.MaxInt64 {
			return new(big.Int).SetUint64(u), err
		}
		return int64(u), err
	}
	return d.DecodeInt64()
}

func unpackList(d *msgpack.Decoder) (any, error) {
	n, err := d.DecodeArrayLen()
	if err != nil {
		return nil, err
	}
	list := make([]any, n)
	for i := range list {
		if list[i], err = unpackValue(d); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func unpackDict(d *msgpack.Decoder) (any, error) {
	n, err := d.DecodeMapLen()
	if err != nil {
		return nil, err
	}
	dict := make(map[string]any, min(n, 1024)) // the same key may come again and again
	for range n {
		key, err := unpackValue(d)
		if err != nil {
			return nil, err
		}
		name, err := value.KeyText(key)
		if err != nil {
			return nil, err
		}
		if dict[name], err = unpackValue(d); err != nil {
			return nil, err
		}
	}
	return dict, nil
}
