package serialization

import (
	"encoding/hex"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol/value"
)

// The bytes are what msgpack.packb(v, use_bin_type=True) wrote.
func TestMsgPack(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value any
		want  string
	}{
		{nil, "c0"}, {true, "c3"}, {false, "c2"},
		{int64(1), "01"}, {int64(127), "7f"}, {int64(128), "cc80"}, {int64(256), "cd0100"}, {int64(65535), "cdffff"},
		{int64(65536), "ce00010000"}, {int64(1 << 32), "cf0000000100000000"},
		{new(big.Int).SetUint64(1 << 63), "cf8000000000000000"},
		{new(big.Int).SetUint64(math.MaxUint64), "cfffffffffffffffff"},
		{int64(-1), "ff"}, {int64(-33), "d0df"}, {int64(-129), "d1ff7f"}, {int64(-1<<31 - 1), "d3ffffffff7fffffff"},
		{int64(math.MinInt64), "d38000000000000000"},
		{1.5, "cb3ff8000000000000"}, {math.NaN(), "cb7ff8000000000001"},
		{"é", "a2c3a9"}, {[]byte("\xff"), "c401ff"}, {strings.Repeat("x", 40), "d928" + strings.Repeat("78", 40)},
		{[]any{int64(1), []any{int64(2)}}, "92019102"}, {map[string]any{"k": []any{int64(1), nil}}, "81a16b9201c0"},
	}
	for _, tt := range tests {
		got, err := MsgPack.Append([]byte("x"), tt.value)
		if err != nil || string(got[:1]) != "x" || hex.EncodeToString(got[1:]) != tt.want {
			t.Errorf("encode %v: %x, %v; want %s", tt.value, got, err, tt.want)
			continue
		}
		again, err := MsgPack.Decode(got[1:])
		if diff := same(tt.value, again); diff != "" || err != nil {
			t.Errorf("decode %s: %v %s", tt.want, err, diff)
		}
	}
	for in, want := range map[string]any{
		"cd0005":             int64(5),
		"d30000000000000005": int64(5),
		"ca3fc00000":         1.5,
		"8301a16102c0c3a162": map[string]any{"1": "a", "2": nil, "true": "b"},
		"82c001c00203":       nil, // trailing
		"dc000101":           []any{int64(1)},
		"df00000001a16b01":   map[string]any{"k": int64(1)},
		"c40000":             nil, // trailing
	} {
		data, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := MsgPack.Decode(data)
		if want == nil && err != nil {
			continue
		}
		if diff := same(want, got); diff != "" || err != nil {
			t.Errorf("decode %s: %v %s", in, err, diff)
		}
	}
}

func TestMsgPackText(t *testing.T) {
	t.Parallel()
	for want, in := range map[string]any{
		"2024-01-02T03:04:05.000678":           localNoon,
		"2024-01-02T03:04:05.000000+02:00":     time.Date(2024, 1, 2, 3, 4, 5, 0, plusTwo),
		"1.50":                                 value.Decimal("1.50"),
		"12345678-1234-4234-8234-123456789abc": sampleID,
	} {
		data, err := MsgPack.Append(nil, in)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := MsgPack.Decode(data); err != nil || got != want {
			t.Errorf("%v travels as %v, %v; want %s", in, got, err, want)
		}
	}
	if data, err := MsgPack.Append(nil, "a\xff"); err != nil || hex.EncodeToString(data) != "c40261ff" {
		t.Errorf("broken text is %x, %v; want bytes", data, err)
	}
	deep := any(nil)
	for range maxBinaryDepth + 1 {
		deep = []any{deep}
	}
	for _, bad := range []any{big70, new(big.Int).Neg(big70), deep, make(chan int)} {
		if _, err := MsgPack.Append(nil, bad); err == nil {
			t.Errorf("%T is written", bad)
		}
	}
}

//nolint:paralleltest // measures what the process allocates
func TestMsgPackHostile(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "unexpected end",
		"c1":                       "c1",
		"a2c3":                     "unexpected end",
		"a1ff":                     "invalid UTF-8",
		"0101":                     "data after the end",
		"dd7fffffff":               "2147483647 members declared",
		"df7fffffff01":             "members declared",
		"dbffffffff":               "unexpected end",
		"c6ffffffff":               "unexpected end",
		"dc":                       "unexpected end",
		"c7":                       "extension",
		"d601":                     "extension",
		"d6ff00000000":             "extension",
		"818130":                   "key of a map",
		"81c4016100":               "key of a map",
		"819000":                   "key of a map",
		"81":                       "unexpected end",
		strings.Repeat("91", 5000): "too deep",
		strings.Repeat("dd00000001", 5000) + "c0": "too deep",
	} {
		data, err := hex.DecodeString(in)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		spent := allocated(func() { v, err = MsgPack.Decode(data) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("decode %.20s = %v, %v; want %q", in, v, err, want)
		}
		if spent > 64<<10 {
			t.Errorf("decode %.20s cost %d bytes", in, spent)
		}
	}
	// A million pairs of one key must not make a map for a million.
	same := append([]byte{0xdf, 0x00, 0x0f, 0x42, 0x40}, make([]byte, 2_000_000)...)
	if spent := allocated(func() { _, _ = MsgPack.Decode(same) }); spent > 16<<20 {
		t.Errorf("two megabytes of one key cost %d bytes", spent)
	}
}

func FuzzMsgpack(f *testing.F) {
	for _, in := range []string{"93920102808", "818130303030", "8301a16102c0c3a162", "cfffffffffffffffff", "dd00000001c0"} {
		data, _ := hex.DecodeString(in[:len(in)&^1])
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { roundTrip(t, MsgPack, data) })
}

// roundTrip decodes hostile data; what decodes must survive being encoded and decoded again.
func roundTrip(t *testing.T, s Serializer, data []byte) {
	v, err := s.Decode(data)
	if err != nil {
		return
	}
	text, err := s.Append(nil, v)
	if err != nil {
		for _, limit := range []string{"deep", "year", "digits", "64 bits"} {
			if strings.Contains(err.Error(), limit) {
				return
			}
		}
		t.Fatalf("%q decodes to %s and is not encoded: %v", data, value.Repr(v, 200), err)
	}
	again, err := s.Decode(text)
	if err != nil {
		t.Fatalf("%q is written as %q: %v", data, text, err)
	}
	if diff := same(v, again); diff != "" {
		t.Fatalf("%q, written as %q, changed: %s", data, text, diff)
	}
}
