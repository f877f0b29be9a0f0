package protocol_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
)

const goodProperties = `{"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": "base64"}`

// withHeaders is the least envelope with the given headers object.
func withHeaders(headers string) string {
	return `{"body": "W10=", "content-type": "application/json", "headers": ` + headers + `, "properties": ` + goodProperties + `}`
}

// Each row is a defect that ends a Python worker, or text that Python's reader refuses. What is readable of such a
// message is TestDecodeEnvelopePartial's.
func TestDecodeEnvelopeRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, raw, reason string }{
		{"empty", ``, "ends too early"},
		{"blank", " \n", "ends too early"},
		{"not json", `hello`, "unexpected 'h'"},
		{"list", `[]`, "not a JSON object"},
		{"list, cut", `[1`, "ends too early"},
		{"number", `5`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"cut", `{"body": "W10="`, "ends too early"},
		{"cut in a string", `{"body": "W1`, "ends too early"},
		{"cut in an escape", `{"body": "\`, "ends too early"},
		{"cut in a \\u escape", `{"body": "\u12"}`, "bad escape"},
		{"bad escape", `{"body": "\x"}`, "bad escape"},
		{"trailing text", withHeaders(`{}`) + `x`, "after the end"},
		{"two documents", withHeaders(`{}`) + withHeaders(`{}`), "after the end"},
		{"trailing comma", `{"body": "",}`, "unexpected '}'"},
		{"leading comma", `{,"body": ""}`, "unexpected ','"},
		{"no colon", `{"body" ""}`, "unexpected '\"'"},
		{"key not a string", `{1: 2}`, "unexpected '1'"},
		{"control character", withHeaders("{\"x\": \"a\nb\"}"), "control character"},
		{"bad utf-8", withHeaders("{\"x\": \"\xff\"}"), "not UTF-8"},
		{"surrogate in utf-8", withHeaders("{\"x\": \"\xed\xa0\x80\"}"), "not UTF-8"},
		{"byte order mark", "\ufeff" + withHeaders(`{}`), "unexpected"},
		{"leading zero", withHeaders(`{"x": 01}`), "unexpected '1'"},
		{"plus", withHeaders(`{"x": +1}`), "unexpected '+'"},
		{"bare minus", withHeaders(`{"x": -}`), "unexpected '}'"},
		{"-NaN", withHeaders(`{"x": -NaN}`), "unexpected 'N'"},
		{"no fraction digits", withHeaders(`{"x": 1.}`), "unexpected '}'"},
		{"no exponent digits", withHeaders(`{"x": 1e+}`), "unexpected '}'"},
		{"word", withHeaders(`{"x": nul}`), "unexpected 'n'"},
		{"single quotes", withHeaders(`{'x': 1}`), "unexpected '\\''"},
		{"nul byte", withHeaders(`{"x": ` + "\x00" + `}`), `unexpected '\x00'`},
		{"too deep", withHeaders(`{"x": ` + strings.Repeat("[", 511) + strings.Repeat("]", 511) + `}`), "nested deeper"},
		{"much too deep", withHeaders(`{"x": ` + strings.Repeat("[", 1e6)), "nested deeper"},
		{"too many digits", withHeaders(`{"x": ` + strings.Repeat("9", 4301) + `}`), "4300 digits"},

		{"no properties", `{"body": "W10=", "headers": {}}`, "no properties"},
		{"properties null", `{"body": "W10=", "properties": null}`, "properties is not an object"},
		{"properties a list", `{"body": "W10=", "properties": []}`, "properties is not an object"},
		{"headers null", withHeaders(`null`), "headers is not an object"},
		{"headers a list", withHeaders(`[]`), "headers is not an object"},
		{"no body", `{"properties": ` + goodProperties + `}`, "no body"},
		{"body null", `{"body": null, "properties": ` + goodProperties + `}`, "body is not a string"},
		{"body an object", `{"body": {}, "properties": ` + goodProperties + `}`, "body is not a string"},
		{"body repeated, once a number", `{"body": 0, ` + withHeaders(`{}`)[1:], "body is not a string"},
		{"body not base64", `{"body": "W10", "properties": ` + goodProperties + `}`, "body is not base64"},
		{"body_encoding hex", strings.Replace(withHeaders(`{}`), `"base64"`, `"hex"`, 1), `unknown body_encoding "hex"`},
		{"body_encoding a number", strings.Replace(withHeaders(`{}`), `"base64"`, `64`, 1), `body_encoding is not a string`},
		{"no delivery_tag", strings.Replace(withHeaders(`{}`), `"delivery_tag"`, `"tag"`, 1), "no properties.delivery_tag"},
		{"delivery_tag null", strings.Replace(withHeaders(`{}`), `"t"`, `null`, 1), "no properties.delivery_tag"},
		{"delivery_tag a list", strings.Replace(withHeaders(`{}`), `"t"`, `[]`, 1), "no properties.delivery_tag"},
		{"no delivery_info", strings.Replace(withHeaders(`{}`), `"delivery_info"`, `"info"`, 1), "no properties.delivery_info"},
		{"delivery_info null", strings.Replace(withHeaders(`{}`), `{"exchange": "", "routing_key": "q"}`, `null`, 1), "delivery_info is not an object"},
		{"no exchange", strings.Replace(withHeaders(`{}`), `"exchange"`, `"x"`, 1), "no properties.delivery_info.exchange"},
		{"no routing_key", strings.Replace(withHeaders(`{}`), `"routing_key"`, `"x"`, 1), "no properties.delivery_info.routing_key"},
		{"routing_key a number", strings.Replace(withHeaders(`{}`), `"q"`, `5`, 1), "no properties.delivery_info.routing_key"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := protocol.DecodeEnvelope([]byte(tt.raw))
			e, ok := errors.AsType[*protocol.EnvelopeError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(e.Error(), tt.reason) || strings.Contains(e.Error(), "\n") {
				t.Errorf("error %q, want %q", e, tt.reason)
			}
			if e.Offset < 0 || e.Offset > len(tt.raw) {
				t.Errorf("offset %d of %d", e.Offset, len(tt.raw))
			}
		})
	}
}

// Whoever waits for a task is told of its envelope's defect, if only the headers can be read.
func TestDecodeEnvelopePartial(t *testing.T) {
	t.Parallel()
	const whole = `{"body": "W10=", "content-type": "application/json", "headers": {"id": "i", "task": "t", "x": 1.0}, "properties": ` + goodProperties + `}`
	swap := func(old, with string) string {
		if !strings.Contains(whole, old) {
			panic(old)
		}
		return strings.Replace(whole, old, with, 1)
	}
	const headers, info = `{"id": "i", "task": "t", "x": 1.0}`, `{"exchange": "", "routing_key": "q"}`
	tests := []struct {
		name, raw string
		body      string // "nil": it cannot be read
		tag       string
	}{
		{"body not base64", swap("W10=", "W10"), "nil", "t"},
		{"body null", swap(`"W10="`, `null`), "nil", "t"},
		{"body an object", swap(`"W10="`, `{"a": [1]}`), "nil", "t"},
		{"body missing", swap(`"body"`, `"b"`), "nil", "t"},
		{"body with a bad byte", swap("W10=", "W10\xff"), "nil", "t"},
		{"body_encoding hex", swap(`"base64"`, `"hex"`), "nil", "t"},
		{"body_encoding a number", swap(`"base64"`, `64`), "nil", "t"},
		{"properties missing", swap(`"properties"`, `"p"`), "nil", ""},
		{"properties null", swap(goodProperties, `null`), "nil", ""},
		{"properties first, a list", `{"properties": [{}], "body": "W10=", "headers": ` + headers + `}`, "nil", ""},
		{"properties twice, then null", `{"properties": ` + goodProperties + `, "body": "W10=", "headers": ` + headers + `, "properties": null}`, "nil", ""},
		{"delivery_tag missing", swap(`"delivery_tag"`, `"tag"`), "[]", ""},
		{"delivery_tag a list", swap(`"t", "delivery_info"`, `[], "delivery_info"`), "[]", ""},
		{"delivery_info missing", swap(`"delivery_info"`, `"info"`), "[]", "t"},
		{"delivery_info a list", swap(info, `[{"exchange": 1}]`), "[]", "t"},
		{"exchange missing", swap(`"exchange"`, `"e"`), "[]", "t"},
		{"routing_key a number", swap(`"q"`, `5`), "[]", "t"},
		{"many defects", `{"properties": {"delivery_tag": [], "body_encoding": {}}, "body": 5, "headers": 6, "headers": ` + headers + `}`, "nil", ""},
		{"text after the end", whole + "x", "[]", "t"},
		{"nul after the end", whole + "\x00", "[]", "t"},
		{"two documents", whole + `{"headers": {"id": "other"}}`, "[]", "t"},
		{"bad byte after the end", whole + "\xff", "[]", "t"},
		{"cut", whole[:len(whole)-1], "[]", "t"},
		{"cut in the properties", whole[:strings.Index(whole, "delivery_info")], "nil", "t"},
		{"cut behind the headers", whole[:strings.Index(whole, `, "properties"`)], "nil", ""},
		{"too many digits", swap(`"properties"`, `"y": `+strings.Repeat("9", 4301)+`, "properties"`), "[]", "t"},
		{"too deep", swap(`"properties"`, `"y": `+strings.Repeat("[", 600)+`, "properties"`), "nil", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := protocol.DecodeEnvelope([]byte(tt.raw))
			if _, ok := errors.AsType[*protocol.EnvelopeError](err); !ok || m == nil {
				t.Fatalf("got %+v, %v", m, err)
			}
			want := protocol.Headers{ID: "i", Task: "t", Extra: []protocol.Header{{"x", json.RawMessage("1.0")}}}
			if diff := cmp.Diff(want, m.Headers); diff != "" {
				t.Error(diff)
			}
			if body := string(m.Body); m.Body == nil && tt.body != "nil" || m.Body != nil && body != tt.body {
				t.Errorf("body is %q", body)
			}
			if m.Properties.DeliveryTag != tt.tag {
				t.Errorf("delivery tag is %q", m.Properties.DeliveryTag)
			}
			if r, _ := protocol.DecodeRequest(m, jsonOnly); r.ID != "i" || r.Task != "t" {
				t.Errorf("request is %+v", r)
			}
		})
	}
	unreadable := map[string]string{
		"not JSON":                        `hello`,
		"not an object":                   `[` + whole + `]`,
		"no headers":                      `{"body": "W10"}`,
		"headers null":                    swap(headers, `null`),
		"headers twice, then null":        swap(`"properties"`, `"headers": null, "properties"`),
		"headers twice, then cut":         swap(`"properties": `+goodProperties+`}`, `"headers": {"id": "j"`),
		"headers cut":                     whole[:strings.Index(whole, `, "x"`)],
		"headers with a bad byte":         swap(`"i"`, "\"i\xff\""),
		"syntax error before the headers": swap(`"W10="`, `"W10=" "`),
	}
	for name, raw := range unreadable {
		if m, err := protocol.DecodeEnvelope([]byte(raw)); m != nil || err == nil {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
}

// The body of protocol 1 names its task, the headers do not.
func TestDecodeEnvelopePartialProtocol1(t *testing.T) {
	t.Parallel()
	raw := `{"body": "{\"task\": \"t\", \"id\": \"i\", \"args\": [], \"kwargs\": {}}", "content-type": "application/json",
		"content-encoding": "utf-8", "headers": {}, "properties": {"delivery_tag": "t"}}`
	m, err := protocol.DecodeEnvelope([]byte(raw))
	if err == nil || m == nil {
		t.Fatalf("got %+v, %v", m, err)
	}
	if r, err := protocol.DecodeRequest(m, jsonOnly); err != nil || r.ID != "i" || r.Task != "t" {
		t.Errorf("request is %+v, %v", r, err)
	}
}

func TestDecodeEnvelopeTolerates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, raw string
		check     func(m *protocol.Message) bool
	}{
		{"no headers", `{"body": "W10=", "properties": ` + goodProperties + `}`,
			func(m *protocol.Message) bool { return string(m.Body) == "[]" && m.ContentType == "" }},
		{"no body_encoding", `{"body": "[\"\u00e9\"]", "properties": {"delivery_tag": 5, "delivery_info": {"exchange": null, "routing_key": "q"}}}`,
			func(m *protocol.Message) bool { return string(m.Body) == `["é"]` && m.Properties.DeliveryTag == "5" }},
		{"body_encoding null", strings.Replace(withHeaders(`{}`), `"base64"`, `null`, 1),
			func(m *protocol.Message) bool { return string(m.Body) == `W10=` }},
		{"body_encoding utf-8", strings.Replace(withHeaders(`{}`), `"base64"`, `"utf-8"`, 1),
			func(m *protocol.Message) bool { return string(m.Body) == `W10=` }},
		{"properties first", `{"properties": ` + goodProperties + `, "body": "W\/10"}`, // W/10 is base64
			func(m *protocol.Message) bool { return string(m.Body) == "[\xfdt" }},
		{"spread out", " {\n\t\"body\" :\r\n\"W10=\" , \"properties\" : " + goodProperties + " } \n",
			func(m *protocol.Message) bool { return string(m.Body) == "[]" }},
		{"priority text", strings.Replace(withHeaders(`{}`), `"body_encoding"`, `"priority": "7", "body_encoding"`, 1),
			func(m *protocol.Message) bool { return m.Properties.Priority == 7 }},
		{"priority null", strings.Replace(withHeaders(`{}`), `"body_encoding"`, `"priority": null, "body_encoding"`, 1),
			func(m *protocol.Message) bool { return m.Properties.Priority == 0 }},
		{"priority huge", strings.Replace(withHeaders(`{}`), `"body_encoding"`, `"priority": 1e300, "body_encoding"`, 1),
			func(m *protocol.Message) bool { return m.Properties.Priority == 1<<31-1 }},
		{"reply_to null", strings.Replace(withHeaders(`{}`), `"body_encoding"`, `"reply_to": null, "body_encoding"`, 1),
			func(m *protocol.Message) bool { return m.Properties.ReplyTo == "" }},
		{"expiration a number", strings.Replace(withHeaders(`{}`), `"body_encoding"`, `"expiration": 60000, "body_encoding"`, 1),
			func(m *protocol.Message) bool { return m.Properties.Expiration == "60000" }},
		{"retries 2.0", withHeaders(`{"retries": 2.0}`),
			func(m *protocol.Message) bool { return m.Headers.Retries == 2 && m.Headers.Malformed == nil }},
		{"deep", withHeaders(`{"x": ` + strings.Repeat("[", 510) + strings.Repeat("]", 510) + `}`),
			func(m *protocol.Message) bool { return len(m.Headers.Extra[0].Value) == 1020 }},
		{"python numbers", withHeaders(`{"x": [NaN, Infinity, -Infinity, ` + strings.Repeat("9", 4300) + `, -0.0e-7]}`),
			func(m *protocol.Message) bool { return len(m.Headers.Extra) == 1 }},
		{"repeated headers", `{"headers": {"id": "a", "x": 1, "shadow": "s"}, ` + withHeaders(`{"id": "b"}`)[1:],
			func(m *protocol.Message) bool {
				return m.Headers.ID == "b" && m.Headers.Extra == nil && m.Headers.Shadow == ""
			}},
		{"repeated header", withHeaders(`{"id": 5, "x": 1, "x": 2, "id": "b", "retries": 3, "retries": "x"}`),
			func(m *protocol.Message) bool {
				return m.Headers.ID == "b" && m.Headers.Retries == 0 && slices.Equal(m.Headers.Malformed, []string{"retries"}) &&
					cmp.Equal(m.Headers.Extra, []protocol.Header{{"x", json.RawMessage("2")}, {"retries", json.RawMessage(`"x"`)}})
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := protocol.DecodeEnvelope([]byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(m) {
				t.Errorf("got %+v", m)
			}
		})
	}
}

// A known header of the wrong kind is named, left zero, and written back as it came.
func TestMalformedHeaders(t *testing.T) {
	t.Parallel()
	tests := map[string][]string{
		"lang":                  {`5`},
		"task":                  {`5`, `null`, `""`, `["a"]`},
		"id":                    {`5`, `""`, `{}`},
		"shadow":                {`false`},
		"eta":                   {`""`, `1764000000`, `[]`},
		"expires":               {`""`, `60.5`},
		"group":                 {`1`},
		"group_index":           {`"1"`, `1.5`, `1e99`, `true`},
		"retries":               {`"3"`, `0.5`, `[]`, `NaN`, `99999999999999999999`},
		"timelimit":             {`5`, `[]`, `[1]`, `[1, 2, 3]`, `["1", null]`, `[-1, null]`, `[NaN, null]`, `[Infinity, null]`, `{}`},
		"root_id":               {`7`},
		"parent_id":             {`7`},
		"argsrepr":              {`["1"]`},
		"kwargsrepr":            {`{"a": 1}`},
		"origin":                {`0`},
		"ignore_result":         {`1`, `"true"`},
		"replaced_task_nesting": {`"0"`},
		"stamped_headers":       {`"a"`, `[1]`, `["a", null]`, `{}`},
		"stamps":                {`[]`, `"a"`, `5`},
		"compression":           {`5`},
		"redelivered":           {`"yes"`, `1`},
	}
	for name, values := range tests {
		for _, v := range values {
			t.Run(name+"="+v, func(t *testing.T) {
				t.Parallel()
				raw := withHeaders(fmt.Sprintf(`{"before": 1.50, %q: %s, "after": "\u00e9"}`, name, v))
				m := decode(t, raw)
				want := protocol.Headers{
					Malformed: []string{name},
					Extra: []protocol.Header{{"before", json.RawMessage("1.50")}, {name, json.RawMessage(v)},
						{"after", json.RawMessage(`"\u00e9"`)}},
				}
				if diff := cmp.Diff(want, m.Headers); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(want, decode(t, string(protocol.AppendEnvelope(nil, m))).Headers); diff != "" {
					t.Errorf("after a round trip: %s", diff)
				}
				m.Headers.Task = "t" // with a task all headers are written, this one once
				out := string(protocol.AppendEnvelope(nil, m))
				if n := strings.Count(out, `"`+name+`": `); n != 1 || name != "task" && !strings.Contains(out, fmt.Sprintf(`%q: %s`, name, v)) {
					t.Errorf("%s is written %d times in %s", name, n, out)
				}
			})
		}
	}
}

func TestHeadersNullIsUnset(t *testing.T) {
	t.Parallel()
	m := decode(t, withHeaders(`{"lang": null, "id": null, "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null,
		"retries": null, "timelimit": null, "root_id": null, "parent_id": null, "argsrepr": null, "kwargsrepr": null, "origin": null,
		"ignore_result": null, "replaced_task_nesting": null, "stamped_headers": null, "stamps": null, "compression": null, "redelivered": null}`))
	if diff := cmp.Diff(protocol.Headers{}, m.Headers); diff != "" {
		t.Error(diff)
	}
}

func TestExtraHeadersKeepTheirBytes(t *testing.T) {
	t.Parallel()
	extra := `"n": 1.0, "big": 123456789012345678901234567890, "e": 1E+05, "nan": NaN, "s": "\u00e9\/\ud800", "o": {"b":1,  "a":[ ]}, "x-death": [{"count": 1}]`
	m := decode(t, withHeaders(`{"task": "t", "id": "i", `+extra+`}`))
	out := string(protocol.AppendEnvelope(nil, m))
	if !strings.Contains(out, `, `+extra+`}`) {
		t.Errorf("%s\nis not in\n%s", extra, out)
	}
}

// A control message has no task; its headers stay what they were.
func TestEnvelopeWithoutTask(t *testing.T) {
	t.Parallel()
	for _, headers := range []string{`{}`, `{"clock": 3, "expires": 1764000000.5}`, `{"id": "x", "redelivered": true}`, `{"compression": "application/x-gzip"}`} {
		out := string(protocol.AppendEnvelope(nil, decode(t, withHeaders(headers))))
		if !strings.Contains(out, `"headers": `+headers+`,`) {
			t.Errorf("headers %s became %s", headers, out)
		}
	}
}

func TestDecodeEnvelopeSharesNothing(t *testing.T) {
	t.Parallel()
	for _, body := range []string{"W10=", strings.Repeat("W10x", 20_000)} {
		raw := []byte(strings.Replace(withHeaders(`{"task": "t", "id": "abc", "x": [1], "stamps": {"s": 1}}`), "W10=", body, 1))
		m := decode(t, string(raw))
		other, err := protocol.DecodeEnvelope(raw)
		if err != nil {
			t.Fatal(err)
		}
		clear(raw)
		if diff := cmp.Diff(m, other); diff != "" {
			t.Errorf("changed with its source: %s", diff)
		}
	}
}

var uuid4 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// Whatever a program puts into a message, a Python worker survives it.
func TestAppendEnvelopeIsAlwaysSafe(t *testing.T) {
	t.Parallel()
	index, no := -1, false
	messages := []*protocol.Message{
		{},
		{Headers: protocol.Headers{Task: "t", ID: "i"}},
		{Headers: protocol.Headers{Task: "t\"\\\n\x00\xff\xed\xa0\x80é", ID: "i", GroupIndex: &index, IgnoreResult: &no,
			TimeLimit: protocol.TimeLimit{Hard: 1e300, Soft: -1}, StampedHeaders: []string{"a", ""},
			Stamps: map[string]json.RawMessage{"b": json.RawMessage(`1 2`), "a": nil, "c": json.RawMessage(`[NaN]`)},
			Extra: []protocol.Header{{"bad", json.RawMessage(`{`)}, {"", nil}, {"id", json.RawMessage(`5`)},
				{"deep", json.RawMessage(strings.Repeat("[", 600) + strings.Repeat("]", 600))}}}},
		{Body: []byte{0, 1, 255}, Properties: protocol.Properties{Priority: -3, DeliveryMode: 1, Expiration: "0",
			Extra: []protocol.Header{{"delivery_tag", json.RawMessage(`"stolen"`)}, {"x", json.RawMessage(`]`)}}}},
	}
	for i, m := range messages {
		raw := string(protocol.AppendEnvelope([]byte("before"), m))
		raw, ok := strings.CutPrefix(raw, "before")
		if !ok {
			t.Fatalf("%d: dst is not kept: %s", i, raw)
		}
		back := decode(t, raw)
		if string(back.Body) != string(m.Body) || back.Headers.ID != m.Headers.ID {
			t.Errorf("%d: body %q, id %q came back from %s", i, back.Body, back.Headers.ID, raw)
		}
		if !uuid4.MatchString(back.Properties.DeliveryTag) {
			t.Errorf("%d: delivery tag %q", i, back.Properties.DeliveryTag)
		}
		checkSafeForPython(t, raw)
	}
}

// checkSafeForPython is the table of what a Python consumer needs of an envelope, written with another JSON reader.
func checkSafeForPython(t *testing.T, raw string) {
	t.Helper()
	var e struct {
		Body            *string         `json:"body"`
		ContentType     *string         `json:"content-type"`
		ContentEncoding *string         `json:"content-encoding"`
		Headers         *map[string]any `json:"headers"`
		Properties      *struct {
			BodyEncoding string  `json:"body_encoding"`
			DeliveryTag  *string `json:"delivery_tag"`
			DeliveryMode int     `json:"delivery_mode"`
			Priority     *int    `json:"priority"`
			DeliveryInfo *struct {
				Exchange   *string `json:"exchange"`
				RoutingKey *string `json:"routing_key"`
			} `json:"delivery_info"`
		} `json:"properties"`
	}
	if err := json.Unmarshal([]byte(pythonTokens.Replace(raw)), &e); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	p := e.Properties
	if e.Body == nil || e.ContentType == nil || e.ContentEncoding == nil || e.Headers == nil || p == nil ||
		p.BodyEncoding != "base64" || p.DeliveryTag == nil || *p.DeliveryTag == "" || p.DeliveryMode < 1 || p.Priority == nil ||
		p.DeliveryInfo == nil || p.DeliveryInfo.Exchange == nil || p.DeliveryInfo.RoutingKey == nil {
		t.Errorf("a Python worker would not survive %s", raw)
	}
}

// pythonTokens makes standard JSON of a text whose strings hold none of Python's three tokens.
var pythonTokens = strings.NewReplacer("-Infinity", "0", "Infinity", "0", "NaN", "0")

func TestNewID(t *testing.T) {
	t.Parallel()
	seen := make(map[string]bool)
	for range 1000 {
		id := protocol.NewID()
		if !uuid4.MatchString(id) || seen[id] {
			t.Fatalf("id %q is no new uuid4", id)
		}
		seen[id] = true
	}
}

func TestMarkRedelivered(t *testing.T) {
	t.Parallel()
	const info = `"delivery_info": {"exchange": "", "routing_key": "q"}`
	tests := []struct{ name, raw, want string }{
		{"plain", `{"body": "", "headers": {"id": "i", "x": 1.0}, "properties": {` + info + `, "y": 1e5}}`,
			`{"body": "", "headers": {"id": "i", "x": 1.0, "redelivered": true}, "properties": {"delivery_info": {"exchange": "", "routing_key": "q", "redelivered": true}, "y": 1e5}}`},
		{"properties first", `{"properties":{"delivery_info":{}},"headers":{}}`,
			`{"properties":{"delivery_info":{"redelivered": true}},"headers":{"redelivered": true}}`},
		{"no headers", `{"properties":{"delivery_info":{}} }`,
			`{"properties":{"delivery_info":{"redelivered": true}} , "headers": {"redelivered": true}}`},
		{"false before", `{"headers":{"redelivered":false ,"a":"\u00e9"},"properties":{"delivery_info":{"redelivered": null}}}`,
			`{"headers":{"redelivered":true ,"a":"\u00e9"},"properties":{"delivery_info":{"redelivered": true}}}`},
		{"repeated", `{"headers":{"redelivered":0},"headers":{"redelivered":1,"redelivered":2},"properties":{"delivery_info":{}}}`,
			`{"headers":{"redelivered":0},"headers":{"redelivered":1,"redelivered":true},"properties":{"delivery_info":{"redelivered": true}}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, raw := range []string{tt.raw, tt.want} { // the second time changes nothing
				got, err := protocol.MarkRedelivered([]byte(raw))
				if err != nil || string(got) != tt.want {
					t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
				}
			}
		})
	}
	for _, raw := range []string{``, `5`, `{}`, `{"headers": null, "properties": {` + info + `}}`, `{"headers": {}, "properties": {}}`,
		`{"headers": {}, "properties": {"delivery_info": 5}}`, `{"headers": {}, "properties": {` + info + `}}x`} {
		if got, err := protocol.MarkRedelivered([]byte(raw)); err == nil {
			t.Errorf("%s became %s", raw, got)
		}
	}
}

func TestMarkAttempts(t *testing.T) {
	t.Parallel()
	const properties = `"properties": {"delivery_info": {}}`
	tests := []struct{ name, raw, want string }{
		{"plain", `{"headers": {"id": "i", "x": 1.0}, ` + properties + `}`, `{"headers": {"id": "i", "x": 1.0, "x-gelery-attempts": 12}, ` + properties + `}`},
		{"counted before", `{"headers": {"x-gelery-attempts": 11 ,"id":"\u00e9"}, ` + properties + `}`, `{"headers": {"x-gelery-attempts": 12 ,"id":"\u00e9"}, ` + properties + `}`},
		{"no count", `{` + properties + `, "headers":{"x-gelery-attempts":["a"]}}`, `{` + properties + `, "headers":{"x-gelery-attempts":12}}`},
		{"no headers", `{` + properties + ` }`, `{` + properties + ` , "headers": {"x-gelery-attempts": 12}}`},
		{"empty headers", `{"headers":{},` + properties + `}`, `{"headers":{"x-gelery-attempts": 12},` + properties + `}`},
		{"repeated", `{"headers":{"x-gelery-attempts":1,"x-gelery-attempts":2},` + properties + `}`, `{"headers":{"x-gelery-attempts":1,"x-gelery-attempts":12},` + properties + `}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, raw := range []string{tt.raw, tt.want} { // the second time changes nothing
				got, err := protocol.MarkAttempts([]byte(raw), 12)
				if err != nil || string(got) != tt.want {
					t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
				}
			}
		})
	}
	for _, raw := range []string{``, `{}`, `{"headers": null, ` + properties + `}`, `{"headers": {}, "properties": {}}`} {
		if got, err := protocol.MarkAttempts([]byte(raw), 1); err == nil {
			t.Errorf("%s became %s", raw, got)
		}
	}
}

func TestMarkRedeliveredOfGolden(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		for name, raw := range loadGolden(t, version).Envelopes {
			marked, err := protocol.MarkRedelivered([]byte(raw))
			if err != nil {
				t.Fatal(err)
			}
			m := decode(t, string(marked))
			if !m.Headers.Redelivered || !m.Properties.DeliveryInfo.Redelivered {
				t.Errorf("%s %s is not marked: %s", version, name, marked)
			}
			m.Headers.Redelivered, m.Properties.DeliveryInfo.Redelivered = false, false
			if diff := cmp.Diff(decode(t, raw), m); diff != "" {
				t.Errorf("%s %s: %s", version, name, diff)
			}
		}
	}
}
