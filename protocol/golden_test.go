package protocol_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
)

// golden is what one version of Celery wrote; testdata/generate.py makes it.
type golden struct {
	Celery    string
	Envelopes map[string]string
	Results   map[string]string // by name and serializer, one rune for each byte
}

var versions = []string{"5.2.7", "5.6.3"}

func loadGolden(t testing.TB, version string) golden {
	t.Helper()
	data, err := os.ReadFile("testdata/celery-" + version + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(data, &g); err != nil {
		t.Fatal(err)
	}
	if g.Celery != version || len(g.Envelopes) == 0 || len(g.Results) == 0 {
		t.Fatalf("golden of %s is of %q and has %d envelopes", version, g.Celery, len(g.Envelopes))
	}
	return g
}

// resultBytes undoes the one rune for each byte.
func resultBytes(text string) []byte {
	data := make([]byte, 0, len(text))
	for _, r := range text {
		data = append(data, byte(r))
	}
	return data
}

func decode(t testing.TB, raw string) *protocol.Message {
	t.Helper()
	m, err := protocol.DecodeEnvelope([]byte(raw))
	if err != nil {
		t.Fatalf("DecodeEnvelope(%s): %v", raw, err)
	}
	return m
}

// What Celery 5.6 writes comes back byte for byte; only non-ASCII text is written as UTF-8 and not as escapes.
func TestEnvelopeGoldenBytes(t *testing.T) {
	t.Parallel()
	g := loadGolden(t, "5.6.3")
	for name, raw := range g.Envelopes {
		if name == "unicode" {
			continue
		}
		got := string(protocol.AppendEnvelope(nil, decode(t, raw)))
		if diff := cmp.Diff(raw, got); diff != "" {
			t.Errorf("%s: (-celery +gelery)\n%s", name, diff)
		}
	}
}

func TestEnvelopeGoldenRoundTrip(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		for name, raw := range loadGolden(t, version).Envelopes {
			m := decode(t, raw)
			again := decode(t, string(protocol.AppendEnvelope(nil, m)))
			if diff := cmp.Diff(m, again); diff != "" {
				t.Errorf("%s %s: %s", version, name, diff)
			}
			if len(m.Headers.Malformed) > 0 {
				t.Errorf("%s %s: malformed %q", version, name, m.Headers.Malformed)
			}
		}
	}
}

func TestEnvelopeGoldenFields(t *testing.T) {
	t.Parallel()
	index, ignore := 3, true
	for _, version := range versions {
		m := decode(t, loadGolden(t, version).Envelopes["options"])
		m.Body = nil
		want := &protocol.Message{
			ContentType:     "application/json",
			ContentEncoding: "utf-8",
			Headers: protocol.Headers{
				Lang: "py", Task: "tasks.add", ID: "task-1", Shadow: "sh",
				ETA:     "2026-01-02T03:04:05.678901+00:00",
				Expires: "2026-01-02T03:04:05.678901+00:00",
				Group:   "g", GroupIndex: &index, Retries: 2,
				TimeLimit: protocol.TimeLimit{Hard: 30, Soft: 20},
				RootID:    "r", ParentID: "p", ArgsRepr: "(2,)", KwargsRepr: "{}", Origin: "gen1@host",
				IgnoreResult: &ignore,
				Extra: []protocol.Header{
					{"x", json.RawMessage(`"y"`)},
					{"n", json.RawMessage(`12345678901234567890`)},
					{"f", json.RawMessage(`1.25`)},
					{"o", json.RawMessage(`{"a": [null, true]}`)},
				},
			},
			Properties: protocol.Properties{
				CorrelationID: "task-1", ReplyTo: "rq", DeliveryMode: 2, Priority: 5, Expiration: "60000",
				DeliveryTag:  "00000001-0000-4000-8000-000000000000",
				DeliveryInfo: protocol.DeliveryInfo{RoutingKey: "celery"},
			},
		}
		if diff := cmp.Diff(want, m); diff != "" {
			t.Errorf("%s: %s", version, diff)
		}
	}
}

func TestEnvelopeGoldenUnicode(t *testing.T) {
	t.Parallel()
	m := decode(t, loadGolden(t, "5.6.3").Envelopes["unicode"])
	if m.Headers.Task != "tasks.é" || m.Headers.Shadow != "é😀\xed\xa0\x80" {
		t.Fatalf("task %q, shadow %q", m.Headers.Task, m.Headers.Shadow)
	}
	out := string(protocol.AppendEnvelope(nil, m))
	if !strings.Contains(out, `"shadow": "é😀\ud800"`) {
		t.Fatalf("written as %s", out)
	}
}
