package protocol_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

func BenchmarkDecodeEnvelope(b *testing.B) {
	raw := []byte(loadGolden(b, "5.6.3").Envelopes["plain"])
	large := []byte(strings.Replace(string(raw), `"body": "`, `"body": "`+strings.Repeat("W10x", 2560), 1))
	for name, raw := range map[string][]byte{"plain": raw, "10kB": large} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := protocol.DecodeEnvelope(raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendEnvelope(b *testing.B) {
	m := decode(b, loadGolden(b, "5.6.3").Envelopes["plain"])
	m.Properties.DeliveryTag = ""
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = protocol.AppendEnvelope(dst[:0], m)
	}
}

func BenchmarkMarkRedelivered(b *testing.B) {
	raw := []byte(loadGolden(b, "5.6.3").Envelopes["plain"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := protocol.MarkRedelivered(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	m := decode(b, loadGolden(b, "5.6.3").Envelopes["plain"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := protocol.DecodeRequest(m, serialization.Accept{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRequestMessage(b *testing.B) {
	r, err := protocol.DecodeRequest(decode(b, loadGolden(b, "5.6.3").Envelopes["plain"]), serialization.Accept{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Message(protocol.Encoding{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendResult(b *testing.B) {
	m := &protocol.ResultMeta{TaskID: "aaaaaaaa-0000-4000-8000-000000000001", Status: protocol.Success, Result: int64(5),
		DateDone: time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)}
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = protocol.AppendResult(dst[:0], m, serialization.JSON); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeResult(b *testing.B) {
	raw := resultBytes(loadGolden(b, "5.6.3").Results["success.json"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := protocol.DecodeResult(raw, serialization.JSON); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNewID(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		protocol.NewID()
	}
}

func BenchmarkFormatTime(b *testing.B) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	b.ReportAllocs()
	for b.Loop() {
		protocol.FormatTime(now)
	}
}
