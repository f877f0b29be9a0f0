package interop

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/task"
)

// headerSets are custom headers, or stamps, as JSON texts. On RabbitMQ they travel as an AMQP table, whose types the
// libraries of the two sides write and read each in their own way; the arguments of the same task, which travel in the
// body, tell the receiver what the headers should be.
var headerSets = []struct{ name, text string }{
	{"integers", `{"x-ms": 1785499200123, "x-ago": -62135596800000, "x-wide": 2147483648, "x-narrow": -2147483649,
		"x-most": 9223372036854775807, "x-least": -9223372036854775808, "x-five": 5, "x-minus": -5, "x-zero": 0,
		"x-byte": 200, "x-short": -32768}`},
	{"scalars", `{"x-none": null, "x-yes": true, "x-no": false, "x-whole": 1.0, "x-half": -0.5, "x-tiny": 5e-324, "x-huge": 1e300,
		"x-text": "h\u00e9llo \u65e5\u672c \ud83d\ude00", "x-empty": "", "x-long": "` + strings.Repeat("long ", 1000) + `", "x-\u00e9": "name"}`},
	{"nested", `{"x-list": [1, -1, null, true, "x", 2.5, [], {}, [1785499200123, [-1785499200123]]], "x-empty": {},
		"x-table": {"a": {"b": [{"c": -5, "d": null}]}, "\u00e9": "k", "ms": -1785499200123, "yes": true, "whole": 2.0}}`},
	{"deep", `{"x-deep": ` + strings.Repeat(`{"d": [`, 20) + `1785499200123` + strings.Repeat(`]}`, 20) + `}`},
	{"large", `{"x-large": ` + largeTable(9000) + `}`},
}

func largeTable(entries int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range entries {
		fmt.Fprintf(&b, `"k%d": %d, `, i, i-entries/2)
	}
	return strings.TrimSuffix(b.String(), ", ") + "}"
}

// pythonSendsHeaders sends each set to a Go worker, as headers and as stamps.
func pythonSendsHeaders(t *testing.T, c Crossing, driver *Driver, settings Settings) {
	const queue = "go-headers"
	runWorker(t, task.Config{Broker: settings.Broker, Backend: settings.Backend, Queue: queue})
	check := func(t *testing.T, name, text string, options map[string]any) {
		t.Helper()
		options["queue"] = queue
		got := run(t, driver, Command{Task: name, Args: []any{json.RawMessage(text)}, Options: options})
		var v struct {
			Equal     bool
			Got, Want string
		}
		if err := json.Unmarshal(got.Value, &v); err != nil {
			t.Fatalf("%s %s: %v", got.State, got.Got, err)
		}
		if !v.Equal {
			t.Errorf("Go got   %s\nexpected %s", v.Got, v.Want)
		}
	}
	for _, s := range headerSets {
		c.Cell(t, "headers "+s.name, func(t *testing.T) {
			check(t, "go.carried", s.text, map[string]any{"headers": json.RawMessage(s.text)})
		})
		if !c.AtLeast("5.3") {
			continue
		}
		c.Cell(t, "stamps "+s.name, func(t *testing.T) {
			options := map[string]any{}
			var stamps map[string]json.RawMessage
			if err := json.Unmarshal([]byte(s.text), &stamps); err != nil {
				t.Fatal(err)
			}
			names := []string{}
			for name, v := range stamps {
				options[name] = v
				names = append(names, name)
			}
			options["stamped_headers"] = names
			check(t, "go.stamped", s.text, options)
		})
	}
}

// pythonReadsHeaders sends each set to the Python worker.
func pythonReadsHeaders(t *testing.T, c Crossing, client *task.Client) {
	check := func(t *testing.T, name string, want map[string]any, options []task.SendOption) {
		t.Helper()
		res, err := client.Send(within(t), name, []any{want}, nil, options...)
		if err != nil {
			t.Fatal(err)
		}
		wantVerdict(t, res)
	}
	for _, s := range headerSets {
		decoded, err := serialization.DecodeJSON([]byte(s.text))
		if err != nil {
			t.Fatal(err)
		}
		want := decoded.(map[string]any)
		c.Cell(t, "headers "+s.name, func(t *testing.T) {
			check(t, "py.carried", want, []task.SendOption{task.Headers(want)})
		})
		if !c.AtLeast("5.3") {
			continue
		}
		c.Cell(t, "stamps "+s.name, func(t *testing.T) {
			var options []task.SendOption
			for name, v := range want {
				options = append(options, task.Stamp(name, v))
			}
			check(t, "py.stamped", want, options)
		})
	}
}
