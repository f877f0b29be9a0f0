package rabbitmq

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

// byValue compares headers by what Python would read in their JSON.
var byValue = cmp.Options{
	cmpopts.EquateNaNs(), cmpopts.EquateEmpty(),
	cmp.Transformer("value", func(text json.RawMessage) any {
		v, err := serialization.DecodeJSON(text)
		if err != nil {
			return err.Error()
		}
		return []any{v}
	}),
}

func envelopes(t testing.TB) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, version := range []string{"5.2.7", "5.6.3"} {
		data, err := os.ReadFile("../../protocol/testdata/celery-" + version + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var golden struct{ Envelopes map[string]string }
		if err := json.Unmarshal(data, &golden); err != nil {
			t.Fatal(err)
		}
		for name, text := range golden.Envelopes {
			all[version+"/"+name] = text
		}
	}
	return all
}

func decodeEnvelope(t testing.TB, text string) *protocol.Message {
	t.Helper()
	m, err := protocol.DecodeEnvelope([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return m
}

// received is the delivery that comes of a publication, without the broker between.
func received(p amqp.Publishing) *amqp.Delivery {
	return &amqp.Delivery{
		Headers: p.Headers, ContentType: p.ContentType, ContentEncoding: p.ContentEncoding, DeliveryMode: p.DeliveryMode,
		Priority: p.Priority, CorrelationId: p.CorrelationId, ReplyTo: p.ReplyTo, Expiration: p.Expiration,
		MessageId: p.MessageId, Timestamp: p.Timestamp, Type: p.Type, UserId: p.UserId, AppId: p.AppId, Body: p.Body,
	}
}

// A message is the same whether it came in an envelope or over AMQP, and its headers go out as py-amqp packs them.
func TestCeleryMessages(t *testing.T) {
	t.Parallel()
	packed := loadPyAMQP(t)
	all := envelopes(t)
	if got, want := slices.Sorted(maps.Keys(packed.Envelopes)), slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
		t.Fatalf("testdata/py-amqp.json has %v, protocol/testdata %v", got, want)
	}
	for name, text := range all {
		m := decodeEnvelope(t, text)
		p, err := publishing(m)
		table := packed.Envelopes[name]
		if table == nil {
			if err == nil || !strings.Contains(err.Error(), "64 bits") || !strings.Contains(err.Error(), "header ") {
				t.Errorf("%s: %v, want an error about an integer", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := latin1(*table)
		if raw := p.Headers[rawKey].([]byte); strings.HasPrefix(name, "5.6") && string(raw) != string(want) {
			t.Errorf("%s: headers\n%q, py-amqp writes\n%q", name, raw, want)
		}
		d := delivery(&amqp.Delivery{Headers: amqp.Table{rawKey: want}}, "q")
		if d.Err != nil {
			t.Errorf("%s: %v", name, d.Err)
		}
		if diff := cmp.Diff(m.Headers, d.Message.Headers, byValue); diff != "" {
			t.Errorf("%s: headers of the envelope and of AMQP differ:\n%s", name, diff)
		}
		d = delivery(received(p), "q")
		m.Properties.DeliveryTag, m.Properties.Extra, m.Properties.DeliveryInfo = "", nil, protocol.DeliveryInfo{}
		m.Properties.Priority = int(p.Priority)
		if diff := cmp.Diff(m, d.Message, byValue); diff != "" || d.Err != nil {
			t.Errorf("%s: a round trip changed it (%v):\n%s", name, d.Err, diff)
		}
	}
}

// Odd headers are judged as in an envelope, which is where Python's opinion of them was found out.
func TestOddHeaders(t *testing.T) {
	t.Parallel()
	for _, headers := range []string{
		`{}`, `{"task": ""}`, `{"task": null, "id": null}`, `{"task": 5, "id": 7}`, `{"task": "t", "id": ""}`,
		`{"task": "t", "eta": "", "expires": 5, "retries": "1", "group": ["g"]}`,
		`{"retries": 2.0, "group_index": 1.5}`, `{"retries": true, "group_index": 2147483648}`,
		`{"retries": 2147483648, "replaced_task_nesting": -1}`, `{"retries": NaN}`, `{"retries": -Infinity}`,
		`{"timelimit": null}`, `{"timelimit": [1]}`, `{"timelimit": [1, 2, 3]}`, `{"timelimit": [-1, null]}`,
		`{"timelimit": ["1", 2]}`, `{"timelimit": 5}`, `{"timelimit": [1.5, 2]}`, `{"timelimit": [NaN, 1]}`,
		`{"stamped_headers": "a"}`, `{"stamped_headers": ["a", 1]}`, `{"stamped_headers": [], "stamps": {}}`,
		`{"stamps": []}`, `{"stamps": {"a": [1, {"b": null}], "a": 2}}`, `{"ignore_result": 1}`, `{"ignore_result": null}`,
		`{"ignore_result": false, "redelivered": true}`, `{"redelivered": 1}`,
		`{"x": 1, "y": {"z": [null]}, "x": "last"}`, `{"id": 5, "id": "i"}`, `{"id": "i", "id": 5}`,
		`{"id": 1, "id": 2, "x": null}`, `{"task": "\ud800", "x": "\udfff", "é": "€"}`, `{"": 1}`,
	} {
		m := decodeEnvelope(t, `{"body": "", "headers": `+headers+
			`, "properties": {"delivery_tag": "", "delivery_info": {"exchange": "", "routing_key": ""}}}`)
		field, err := appendJSONField(nil, []byte(headers), 0)
		if err != nil {
			t.Fatal(err)
		}
		var d decoding
		if err := d.headers(field[5:]); err != nil {
			t.Errorf("%s: %v", headers, err)
		}
		if diff := cmp.Diff(m.Headers, d.Headers, byValue); diff != "" {
			t.Errorf("%s: headers of the envelope and of AMQP differ:\n%s", headers, diff)
		}
		m.Headers.Redelivered = false
		p, err := publishing(m)
		if err != nil {
			t.Errorf("%s: %v", headers, err)
			continue
		}
		if diff := cmp.Diff(m.Headers, delivery(received(p), "q").Message.Headers, byValue); diff != "" {
			t.Errorf("%s: a round trip changed the headers:\n%s", headers, diff)
		}
	}
	// Bytes are no text to Python.
	var d decoding
	if err := d.headers([]byte("\x02idS\x00\x00\x00\x01\xff\x04taskx\x00\x00\x00\x01t")); err != nil {
		t.Fatal(err)
	}
	want := protocol.Headers{Malformed: []string{"id", "task"}, Extra: []protocol.Header{
		{Name: "id", Value: json.RawMessage(`"\udcff"`)}, {Name: "task", Value: json.RawMessage(`"t"`)}}}
	if diff := cmp.Diff(want, d.Headers); diff != "" {
		t.Error(diff)
	}
}

func TestPublishing(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 256)
	for name, c := range map[string]struct {
		m    protocol.Message
		want amqp.Publishing
		err  string
	}{
		"empty": {want: amqp.Publishing{DeliveryMode: 2, Headers: amqp.Table{rawKey: []byte{}}}},
		"all": {
			m: protocol.Message{ContentType: "ct", ContentEncoding: "ce", Body: []byte("b"), Properties: protocol.Properties{
				CorrelationID: "c", ReplyTo: "r", DeliveryMode: 1, Priority: 9, Expiration: "315360000000",
				Extra: []protocol.Header{{Name: "x", Value: json.RawMessage("1")}}}},
			want: amqp.Publishing{ContentType: "ct", ContentEncoding: "ce", Body: []byte("b"), CorrelationId: "c", ReplyTo: "r",
				DeliveryMode: 1, Priority: 9, Expiration: "315360000000", Headers: amqp.Table{rawKey: []byte{}}},
		},
		"clamped": {
			m:    protocol.Message{Properties: protocol.Properties{Priority: 256, DeliveryMode: 7, Expiration: "315360000001"}},
			want: amqp.Publishing{DeliveryMode: 2, Priority: 255, Headers: amqp.Table{rawKey: []byte{}}},
		},
		"negative priority": {
			m:    protocol.Message{Properties: protocol.Properties{Priority: -1, Expiration: strings.Repeat("9", 30)}},
			want: amqp.Publishing{DeliveryMode: 2, Headers: amqp.Table{rawKey: []byte{}}},
		},
		"headers": {
			m: protocol.Message{Headers: protocol.Headers{ID: "i", Redelivered: true, TimeLimit: protocol.TimeLimit{Soft: 1 << 60},
				ArgsRepr: "a\xff\xed\xa0\x80", Extra: []protocol.Header{
					{Name: "x-death", Value: json.RawMessage("[]")}, {Name: "x-first-death-queue", Value: json.RawMessage(`"q"`)},
					{Name: "CC", Value: json.RawMessage("[]")}, {Name: "id", Value: json.RawMessage("2")},
					{Name: "bad", Value: json.RawMessage("[1")}}}},
			want: amqp.Publishing{DeliveryMode: 2, Headers: amqp.Table{rawKey: []byte("\x02idS\x00\x00\x00\x01i" +
				"\x09timelimitA\x00\x00\x00\x0aVd\x43\xb0\x00\x00\x00\x00\x00\x00" +
				"\x08argsreprS\x00\x00\x00\x0da\ufffd\ufffd\ufffd\ufffd\x03badV")}},
		},
		"expiration":     {m: protocol.Message{Properties: protocol.Properties{Expiration: "1.5"}}, err: `expiration "1.5"`},
		"negative":       {m: protocol.Message{Properties: protocol.Properties{Expiration: "-1"}}, err: `expiration "-1"`},
		"correlation id": {m: protocol.Message{Properties: protocol.Properties{CorrelationID: long}}, err: "correlation_id"},
		"reply to":       {m: protocol.Message{Properties: protocol.Properties{ReplyTo: "\xff"}}, err: "reply_to"},
		"content type":   {m: protocol.Message{ContentType: long}, err: "content type"},
		"header name": {m: protocol.Message{Headers: protocol.Headers{Extra: []protocol.Header{
			{Name: long, Value: json.RawMessage("1")}}}}, err: "256 bytes"},
		"stamp": {m: protocol.Message{Headers: protocol.Headers{Stamps: map[string]json.RawMessage{
			"s": json.RawMessage("18446744073709551616")}}}, err: "header s: integer 18446744073709551616"},
		"large headers": {m: protocol.Message{Headers: protocol.Headers{KwargsRepr: strings.Repeat("x", maxTable)}}, err: "122880"},
	} {
		got, err := publishing(&c.m)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", name, err, c.err)
			continue
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	d := delivery(&amqp.Delivery{Exchange: "x", RoutingKey: "k", Redelivered: true, Body: []byte("b"), Priority: 3}, "q")
	if d.Queue != "q" || !d.Redelivered || string(d.Raw) != "b" || d.Err != nil || d.Message.Properties.Priority != 3 ||
		d.Message.Properties.DeliveryInfo != (protocol.DeliveryInfo{Exchange: "x", RoutingKey: "k", Redelivered: true}) {
		t.Errorf("delivery is %+v, its message %+v", d, d.Message)
	}
	d = delivery(&amqp.Delivery{Exchange: deliveryExchange, RoutingKey: "0.1.k"}, "q")
	if d.Message.Properties.DeliveryInfo != (protocol.DeliveryInfo{RoutingKey: "q"}) {
		t.Errorf("a delayed message is addressed to %+v", d.Message.Properties.DeliveryInfo)
	}
	for name, headers := range map[string]amqp.Table{
		"broken":     {rawKey: []byte("\x02idS\x00\x00\x00\x01i\x01xz")},
		"cut":        {cutKey: []byte("\x02idS\x00\x00\x00\x01i\x01xI\x00")},
		"cut evenly": {cutKey: []byte("\x02idS\x00\x00\x00\x01i")},
		"broken in":  {rawKey: []byte("\x02idS\x00\x00\x00\x01i\x01xA\x00\x00\x00\x02Vz\x04taskS\x00\x00\x00\x01t")},
	} {
		d := delivery(&amqp.Delivery{Headers: headers, Body: []byte("b")}, "q")
		if d.Err == nil || d.Message.Headers.ID != "i" || d.Message.Headers.Task != "" || string(d.Raw) != "b" {
			t.Errorf("%s: error %v, headers %+v", name, d.Err, d.Message.Headers)
		}
	}
	if d := delivery(&amqp.Delivery{Headers: amqp.Table{"id": "i"}}, "q"); d.Err == nil {
		t.Error("a table that did not come through a socket was taken for none")
	}
}

// Above 16 KiB the strings do not keep the table alive; what they say is the same.
func TestLargeTable(t *testing.T) {
	t.Parallel()
	m := protocol.Message{Headers: protocol.Headers{Task: "t", ID: "i", ArgsRepr: strings.Repeat("x", shareBelow)}}
	p, err := publishing(&m)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.Headers, delivery(received(p), "q").Message.Headers); diff != "" {
		t.Error(diff)
	}
}

func TestRepublishing(t *testing.T) {
	t.Parallel()
	raw := "\x04taskS\x00\x00\x00\x01t\x01nL\xff\xff\xff\xff\xff\xff\xff\xff\x06reasonV" +
		"\x07x-deathA\x00\x00\x00\x00\x13x-first-death-queueV\x02CCV\x01fs\x00\x01"
	kept := "\x04taskS\x00\x00\x00\x01t\x01nL\xff\xff\xff\xff\xff\xff\xff\xff\x01fs\x00\x01"
	at := time.Unix(1e9, 0)
	d := amqp.Delivery{Headers: amqp.Table{rawKey: []byte(raw)}, ContentType: "ct", ContentEncoding: "ce", DeliveryMode: 1,
		Priority: 2, CorrelationId: "c", ReplyTo: "r", Expiration: "5", MessageId: "m", Timestamp: at, Type: "ty",
		UserId: "u", AppId: "a", Body: []byte("b"), Exchange: "x", RoutingKey: "k"}
	got := republishing(&d, tableEntry{"reason", "bad"}, tableEntry{"at", int64(-1 << 40)}, tableEntry{"gone", nil})
	want := amqp.Publishing{ContentType: "ct", ContentEncoding: "ce", DeliveryMode: 1, Priority: 2, CorrelationId: "c",
		ReplyTo: "r", Expiration: "5", MessageId: "m", Timestamp: at, Type: "ty", AppId: "a", Body: []byte("b"),
		Headers: amqp.Table{rawKey: []byte(kept + "\x06reasonS\x00\x00\x00\x03bad\x02atL\xff\xff\xff\x00\x00\x00\x00\x00")}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = republishing(&d, tableEntry{"task", nil}, tableEntry{"reason", nil})
	if want := kept[len("\x04taskS\x00\x00\x00\x01t"):]; string(got.Headers[rawKey].([]byte)) != want {
		t.Errorf("headers %q, want %q", got.Headers[rawKey], want)
	}
	long := republishing(&amqp.Delivery{}, tableEntry{"r", strings.Repeat("é", maxTable) + "\xff"}).Headers[rawKey].([]byte)
	if v, _ := tableLookup(long, "r"); v != strings.Repeat("é", maxEntry/2) {
		t.Errorf("an entry of %d bytes was added", len(long))
	}
	// A table that cannot go out again loses what does not fit, or cannot be told apart.
	large := string(appendText(appendName(nil, "large"), strings.Repeat("x", maxTable)))
	for name, headers := range map[string]amqp.Table{
		"large":  {rawKey: []byte("\x01aV" + large + "\x01bV")},
		"broken": {rawKey: []byte("\x01aV\x01bV\x01cz")},
		"cut":    {cutKey: []byte("\x01aV\x01bV\x05c")},
	} {
		got := republishing(&amqp.Delivery{Headers: headers}, tableEntry{"r", "s"}).Headers[rawKey].([]byte)
		if want := "\x01aV\x01bV\x01rS\x00\x00\x00\x01s"; string(got) != want {
			t.Errorf("%s: headers %.100q, want %q", name, got, want)
		}
	}
}

// Properties that Celery leaves to its callers are told, and sent on with a retry, but for the user_id and what AMQP cannot
// carry.
func TestOtherProperties(t *testing.T) {
	t.Parallel()
	d := delivery(&amqp.Delivery{AppId: "a", MessageId: "m", Type: "ty", UserId: "u"}, "q")
	want := []protocol.Header{{Name: "app_id", Value: json.RawMessage(`"a"`)}, {Name: "message_id", Value: json.RawMessage(`"m"`)},
		{Name: "type", Value: json.RawMessage(`"ty"`)}, {Name: "user_id", Value: json.RawMessage(`"u"`)}}
	if diff := cmp.Diff(want, d.Message.Properties.Extra); diff != "" {
		t.Error(diff)
	}
	p, err := publishing(d.Message)
	if err != nil || p.AppId != "a" || p.MessageId != "m" || p.Type != "ty" || p.UserId != "" {
		t.Errorf("sent on: %+v, %v", p, err)
	}
	d.Message.Properties.Extra = []protocol.Header{{Name: "app_id", Value: json.RawMessage(`1`)},
		{Name: "type", Value: json.RawMessage(`"` + strings.Repeat("x", 256) + `"`)}}
	if p, err = publishing(d.Message); err != nil || p.AppId != "" || p.Type != "" {
		t.Errorf("what AMQP cannot carry: %+v, %v", p, err)
	}
}
