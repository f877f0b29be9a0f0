package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// beatSchedule is Celery's beat_schedule as JSON, each entry with a queue of its own.
const beatSchedule = `{
	"plain":   {"task": "proj.plain", "schedule": 0.5, "options": {"queue": "plain"}},
	"args":    {"task": "proj.add", "schedule": 0.5, "args": [16, "é", null, 1.5, [1], {"a": 1}], "kwargs": {"k": true}, "options": {"queue": "args"}},
	"options": {"task": "proj.add", "schedule": 0.5, "args": [16],
		"options": {"queue": "options", "expires": 15, "priority": 2, "headers": {"h": 1}, "time_limit": 10, "soft_time_limit": 5, "shadow": "s"}},
	"later":   {"task": "proj.add", "schedule": 0.5, "options": {"queue": "later", "countdown": 30, "ignore_result": true, "retries": 2}},
	"yaml":    {"task": "proj.add", "schedule": 0.5, "args": [1], "options": {"queue": "yaml", "serializer": "yaml", "compression": "gzip", "delivery_mode": 1}},
	"default": {"task": "proj.add", "schedule": 0.5}
}`

var beatQueues = []string{"plain", "args", "options", "later", "yaml", "celery"}

// TestBeatMessages: celery beat and gelery beat send the same messages of the same settings, field by field.
func TestBeatMessages(t *testing.T) {
	t.Parallel()
	for _, stack := range []Stack{RedisStack, RabbitMQStack} {
		t.Run(stack.String(), func(t *testing.T) {
			t.Parallel()
			python := FindVersion(t, "5.6")
			wants := sentBy(t, python, stack, func(s Settings) *exec.Cmd {
				s.Conf = map[string]any{"beat_schedule": json.RawMessage(beatSchedule)}
				return python.Command(t, s, "celery", "-A", "app", "beat", "-l", "info", "-s", filepath.Join(t.TempDir(), "state"))
			})
			gots := sentBy(t, python, stack, func(s Settings) *exec.Cmd {
				folder := t.TempDir()
				config := filepath.Join(folder, "gelery.json")
				text := `{"beat_schedule": ` + beatSchedule + `, "beat_expires": false, "beat_schedule_filename": "` + filepath.Join(folder, "state") + `"}`
				if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := exec.Command(Gelery(t), "-b", s.Broker, "--config", config, "beat", "-l", "info")
				cmd.Env = withoutCelery(os.Environ())
				return cmd
			})
			for i, want := range wants {
				t.Run(beatQueues[i], func(t *testing.T) {
					if d := cmp.Diff(want, gots[i]); d != "" {
						t.Errorf("celery beat sends -, gelery beat +:\n%s", d)
					}
				})
			}
		})
	}
}

// sentBy runs a beat until each entry was sent, and returns the first message of each queue, without what differs from message to message.
func sentBy(t *testing.T, python Version, stack Stack, beat func(Settings) *exec.Cmd) []map[string]any {
	t.Helper()
	s := stack.Open(t)
	p := Start(t, "beat", beat(s))
	p.WaitFor(t, `Sending due task`, time.Minute)
	read := python.Command(t, s, "python", append([]string{"messages.py"}, beatQueues...)...)
	var said strings.Builder
	read.Stderr = &said
	out, err := read.Output()
	p.Kill()
	if err != nil {
		t.Fatalf("messages.py: %v\n%s", err, said.String())
	}
	var all []map[string]any
	for line := range strings.Lines(string(out)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, comparable(t, m))
	}
	if len(all) != len(beatQueues) {
		t.Fatalf("%d messages, want %d", len(all), len(beatQueues))
	}
	return all
}

// comparable checks what is told in times and ids, and leaves it out.
func comparable(t *testing.T, m map[string]any) map[string]any {
	t.Helper()
	headers, properties := m["headers"].(map[string]any), m["properties"].(map[string]any)
	if headers["id"] == nil || headers["root_id"] != headers["id"] || properties["correlation_id"] != headers["id"] {
		t.Errorf("%s: the ids are %v, %v, %v", m["queue"], headers["id"], headers["root_id"], properties["correlation_id"])
	}
	for _, name := range []string{"eta", "expires"} {
		text, ok := headers[name].(string)
		if !ok {
			continue
		}
		at, err := time.Parse("2006-01-02T15:04:05.999999Z07:00", text)
		if until := time.Until(at); err != nil || until > 31*time.Second || until < -5*time.Minute {
			t.Errorf("%s: %s is %s", m["queue"], name, text)
		}
		headers[name] = "a time"
	}
	if expiration, ok := properties["expiration"].(string); ok {
		properties["expiration"] = len(expiration) // about 15000, which a slow machine makes 14999
	}
	if headers["ignore_result"] == false { // which is what Gelery means by leaving it out
		delete(headers, "ignore_result")
	}
	if args, ok := headers["argsrepr"].(string); ok { // a list's from Celery's beat, a tuple's as from apply_async
		headers["argsrepr"] = strings.Trim(args, "[](),")
	}
	for _, name := range []string{"id", "root_id", "origin", "lang", "periodic_task_name", "periodic_task_moment"} {
		delete(headers, name)
	}
	for _, name := range []string{"correlation_id", "reply_to", "timestamp", "application_headers"} {
		delete(properties, name)
	}
	if m["queue"] == "yaml" {
		delete(m, "body") // two writers of YAML
	}
	return m
}
