package interop

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/transport"
)

// Types of fields.
const (
	isText  = "text"
	isFloat = "float"
	isInt   = "int"
	isBool  = "bool"
	orNull  = " or null"
)

// eventFields are the fields that each type of event has beside those of all events, and their types.
var eventFields = map[string]map[string]string{
	"worker-online":    {"freq": isFloat, "active": isInt, "processed": isInt, "loadavg": "floats", "sw_ident": isText, "sw_ver": isText, "sw_sys": isText},
	"worker-heartbeat": {"freq": isFloat, "active": isInt, "processed": isInt, "loadavg": "floats", "sw_ident": isText, "sw_ver": isText, "sw_sys": isText},
	"worker-offline":   {"freq": isFloat, "active": isInt, "processed": isInt, "loadavg": "floats", "sw_ident": isText, "sw_ver": isText, "sw_sys": isText},
	"worker-elect":     {"id": isText, "topic": isText, "action": "any", "cver": isInt},
	"worker-elect-ack": {"id": isText},
	"task-received": {"uuid": isText, "name": isText, "args": isText, "kwargs": isText, "root_id": isText + orNull, "parent_id": isText + orNull,
		"retries": isInt, "eta": isText + orNull, "expires": isText + orNull},
	"task-started":   {"uuid": isText},
	"task-succeeded": {"uuid": isText, "result": isText, "runtime": isFloat},
	"task-failed":    {"uuid": isText, "exception": isText, "traceback": "optional " + isText + orNull},
	"task-rejected":  {"uuid": isText, "requeue": isBool},
	"task-revoked":   {"uuid": isText, "terminated": isBool, "signum": isInt + orNull, "expired": isBool},
	"task-retried":   {"uuid": isText, "exception": isText, "traceback": isText},
}

// everyEvent are the fields of all events.
var everyEvent = map[string]string{"hostname": isText, "utcoffset": isInt, "pid": isInt, "clock": isInt, "timestamp": isFloat, "type": isText}

// judgeEvents reads a message of events, and tells what a Python worker would stumble over.
func judgeEvents(t *testing.T, d *transport.Delivery) (all []map[string]any) {
	t.Helper()
	complain := func(format string, a ...any) { t.Errorf("%s: %.500s", fmt.Sprintf(format, a...), d.Message.Body) }
	v := judgeMessage(t, d)
	list, isList := v.([]any)
	if !isList {
		list = []any{v}
	}
	if len(list) == 0 {
		complain("an empty list")
	}
	key := d.Message.Properties.DeliveryInfo.RoutingKey
	for _, x := range list {
		e, isMap := x.(map[string]any)
		kind, _ := e["type"].(string)
		fields, known := eventFields[kind]
		if !isMap || !known {
			complain("no event that is known")
			continue
		}
		if isList && (key != protocol.TaskMultiKey || !strings.HasPrefix(kind, "task-")) || !isList && key != strings.ReplaceAll(kind, "-", ".") {
			complain("the routing key is %q", key)
		}
		want := maps.Clone(everyEvent)
		maps.Copy(want, fields)
		for name, kind := range want {
			kind, optional := strings.CutPrefix(kind, "optional ")
			if v, given := e[name]; !given && !optional || given && !hasType(v, kind) {
				complain("%s is %#v; expected %s", name, v, kind)
			}
		}
		for name := range e {
			if want[name] == "" {
				complain("%s is unknown", name)
			}
		}
		if e["uuid"] == "" {
			complain("no id")
		}
		all = append(all, e)
	}
	return all
}

func hasType(v any, kind string) bool {
	kind, null := strings.CutSuffix(kind, orNull)
	if v == nil {
		return null || kind == "any"
	}
	switch v := v.(type) {
	case string:
		return kind == isText || kind == "any"
	case float64:
		return kind == isFloat && !math.IsNaN(v) && !math.IsInf(v, 0) || kind == "any"
	case int64:
		return kind == isInt || kind == "any"
	case bool:
		return kind == isBool || kind == "any"
	case []any:
		return kind == "any" || kind == "floats" && len(v) == 3 && !slices.ContainsFunc(v, func(x any) bool { return !hasType(x, isFloat) })
	}
	return kind == "any"
}

// judgeMessage looks at the envelope, and reads the body as Python does.
func judgeMessage(t *testing.T, d *transport.Delivery) any {
	t.Helper()
	m := d.Message
	if m.ContentType != "application/json" || m.ContentEncoding != "utf-8" || !utf8.Valid(m.Body) {
		t.Errorf("content type %q, encoding %q: %.300q", m.ContentType, m.ContentEncoding, m.Body)
	}
	var envelope struct { // on Redis; on RabbitMQ the body alone
		Headers    map[string]any
		Properties *struct {
			Tag          string `json:"delivery_tag"`
			Mode         int    `json:"delivery_mode"`
			BodyEncoding string `json:"body_encoding"`
			Priority     *int   `json:"priority"`
			Info         struct {
				Exchange   *string `json:"exchange"`
				RoutingKey *string `json:"routing_key"`
			} `json:"delivery_info"`
		}
	}
	if err := json.Unmarshal(d.Raw, &envelope); err == nil && envelope.Properties != nil {
		p := envelope.Properties
		if p.Tag == "" || p.Mode != 1 || p.BodyEncoding != "base64" || p.Priority == nil || p.Info.Exchange == nil || p.Info.RoutingKey == nil || envelope.Headers == nil {
			t.Errorf("the envelope is %.500s", d.Raw)
		}
	}
	v, err := serialization.DecodeJSON(m.Body)
	if err != nil {
		t.Errorf("%v: %.300s", err, m.Body)
	}
	return v
}

// judgeReply reads a reply, and tells what a Python client would stumble over.
func judgeReply(t *testing.T, d *transport.Delivery, node, method string) {
	t.Helper()
	v, _ := judgeMessage(t, d).(map[string]any)
	reply, own := v[node]
	complain := func(what string) { t.Errorf("%s: %s: %.500s", method, what, d.Message.Body) }
	if !own || len(v) != 1 {
		complain("it is not that of " + node)
	}
	clocked := slices.ContainsFunc(d.Message.Headers.Extra, func(h protocol.Header) bool {
		n, err := serialization.DecodeJSON(h.Value)
		return h.Name == "clock" && err == nil && hasType(n, isInt)
	})
	if !clocked {
		complain("no clock")
	}
	m, isMap := reply.(map[string]any)
	if text, failed := m["error"]; failed && len(m) == 1 {
		if !hasType(text, isText) {
			complain("an error that is no text")
		}
		return
	}
	_, isList := reply.([]any)
	switch strings.TrimPrefix(method, "dump_") {
	case "active", "reserved", "scheduled", "schedule", "revoked", "registered", "tasks", "active_queues":
		if !isList {
			complain("no list")
		}
	case "stats", "conf", "query_task", "clock":
		if !isMap {
			complain("no mapping")
		}
	case "memsample", "memdump":
		if !hasType(reply, isText+orNull) {
			complain("no text")
		}
	case "heartbeat", "election":
		if reply != nil {
			complain("not null")
		}
	case "hello":
		revoked, isRevoked := m["revoked"].(map[string]any)
		if !isRevoked || !hasType(m["clock"], isInt) {
			complain("no revoked, or no clock")
		}
		for id, x := range revoked {
			if pair, _ := x.([]any); len(pair) != 2 || !hasType(pair[0], isFloat) || pair[1] != id {
				complain(fmt.Sprintf("%q is revoked with %v", id, x))
			}
		}
	default:
		if len(m) != 1 || !hasType(m["ok"], isText) {
			complain("neither ok nor error")
		}
	}
}
