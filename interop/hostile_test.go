package interop

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
)

// TestHostileMessages puts what kills Python workers in front of a Go worker on a real Redis: transports.md 1.3 and the
// bodies of reliability.md 3.6. Each is set aside byte for byte and with a reason, whoever waits for it is told, and the
// good tasks between them run.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	s := RedisStack.Open(t)
	s.Queue = goQueue
	StartGelery(t, s)
	client := dial(t, s, 2)
	rdb := redisClient(t, s.Broker)
	const rounds = 20
	injected := map[string]int{}
	var ids []string
	for round := range rounds {
		for i, h := range hostileMessages(round) {
			if err := rdb.LPush(t.Context(), goQueue, h.raw).Err(); err != nil {
				t.Fatal(err)
			}
			injected[h.raw]++
			if h.id != "" {
				ids = append(ids, h.id)
			}
			if i%5 == 0 {
				wantResult(t, client, "dev.add", []any{i, 1}, int64(i+1))
			}
		}
	}
	total := rounds * len(hostileMessages(0))
	eventually(t, "all are in quarantine", func() bool {
		return rdb.LLen(t.Context(), "_gelery.quarantine."+goQueue).Val() == int64(total)
	})
	wantResult(t, client, "dev.add", []any{2, 3}, int64(5))
	eventually(t, "nothing is held any more", func() bool {
		return rdb.HLen(t.Context(), "unacked").Val() == 0 && rdb.ZCard(t.Context(), "unacked_index").Val() == 0
	})
	for _, m := range quarantined(t, s, total) {
		raw, reason := m.raw(t), m.Reason
		if injected[raw]--; injected[raw] < 0 {
			t.Errorf("in quarantine and never sent: %.100q", raw)
		}
		if reason == "" {
			t.Errorf("no reason: %.100q", raw)
		}
	}
	for raw, missing := range injected {
		if missing > 0 {
			t.Errorf("%d times not in quarantine: %.300q", missing, raw)
		}
	}
	for _, id := range ids {
		if state, err := client.Result(id).State(within(t)); err != nil || state != protocol.Failure {
			t.Errorf("%s has state %s, %v; expected %s", id, state, err, protocol.Failure)
		}
	}
}

// setAside is a message as the command shows it in quarantine.
type setAside struct {
	Queue, Reason, Text, Base64 string
	Properties                  struct {
		ID      string                     `json:"message_id"`
		Headers map[string]json.RawMessage `json:"headers"`
	}
}

func (m *setAside) raw(t testing.TB) string {
	t.Helper()
	bytes, err := base64.StdEncoding.DecodeString(m.Base64)
	if err != nil {
		t.Fatalf("the command shows %+v: %v", m, err)
	}
	return m.Text + string(bytes)
}

// quarantined is what the command shows of the quarantine.
func quarantined(t testing.TB, s Settings, limit int) []setAside {
	t.Helper()
	var shown []setAside
	out := gelery(t, s, "queues", "--quarantine", s.Queue, "--limit", strconv.Itoa(limit+1), "-o", "json")
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		t.Fatal(err)
	}
	for _, m := range shown {
		if m.Queue != s.Queue {
			t.Errorf("the command shows a message of queue %q, asked for %q", m.Queue, s.Queue)
		}
	}
	return shown
}

// hostile is a message that is malformed in a way known to kill a Python worker, or to be lost by one.
type hostile struct {
	raw string
	id  string // of the task, where one can be read and somebody may wait for it
}

func hostileMessages(round int) []hostile {
	var all []hostile
	envelope := func(headers, body, encoding string) string {
		return fmt.Sprintf(`{"body": %q, "content-type": "application/json", "content-encoding": "utf-8", "headers": %s, `+
			`"properties": {"delivery_tag": "t%d", "body_encoding": %q, "delivery_info": {"exchange": "", "routing_key": "%s"}, "priority": 0}}`,
			body, headers, round, encoding, goQueue)
	}
	const triple, plain = `[[1, 2], {}, null]`, "utf-8"
	for _, raw := range []string{
		"not json", "\x00\xff\x1b[2J", "", "[1]", `"text"`, "5", `{}`, `{"properties": null}`, `{"properties": {}}`,
		`{"properties": {"delivery_tag": "t"}}`, `{"properties": {"delivery_tag": "t", "delivery_info": {}}}`,
		`{"properties": {"delivery_tag": "t", "delivery_info": {"exchange": ""}}}`,
		`{"headers": null, "properties": {"delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
		`{"body": "x", "properties": {"body_encoding": "hex", "delivery_tag": "t", "delivery_info": {"exchange": "", "routing_key": "q"}}}`,
		envelope(`{}`, triple, plain), envelope(`{"task": "dev.add"}`, triple, plain), envelope(`{"task": "dev.add", "id": 5}`, triple, plain),
	} {
		all = append(all, hostile{raw: raw})
	}
	for _, m := range []struct{ task, rest, body, encoding string }{
		{`5`, ``, triple, plain}, {`"no.such.task"`, ``, triple, plain},
		{`"dev.add"`, `, "eta": ""`, triple, plain}, {`"dev.add"`, `, "expires": 5`, triple, plain},
		{`"dev.add"`, `, "timelimit": [1]`, triple, plain}, {`"dev.add"`, `, "timelimit": "abc"`, triple, plain},
		{`"dev.add"`, `, "retries": "x"`, triple, plain}, {`"dev.add"`, `, "compression": "application/x-gzip"`, triple, plain},
		{`"dev.add"`, ``, `123`, plain}, {`"dev.add"`, ``, `null`, plain}, {`"dev.add"`, ``, ``, plain},
		{`"dev.add"`, ``, `[[], {}]`, plain}, {`"dev.add"`, ``, `[[], null, null]`, plain}, {`"dev.add"`, ``, `[null, {}, null]`, plain},
		{`"dev.add"`, ``, `[[`, plain}, {`"dev.add"`, ``, strings.Repeat("[", 100_000), plain},
		{`"dev.add"`, ``, triple, "hex"}, {`"dev.add"`, ``, triple, "base64"},
	} {
		id := fmt.Sprintf("hostile-%d-%d", round, len(all))
		headers := fmt.Sprintf(`{"task": %s, "id": %q%s}`, m.task, id, m.rest)
		all = append(all, hostile{envelope(headers, m.body, m.encoding), id})
	}
	return all
}

// gelery runs the command and returns its standard output.
func gelery(t testing.TB, s Settings, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(within(t), Gelery(t), append(args, "-b", s.Broker, "--result-backend", s.Backend)...)
	cmd.Env = withoutCelery(os.Environ())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gelery %v: %v", args, err)
	}
	return string(out)
}
