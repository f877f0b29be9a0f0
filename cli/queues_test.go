package cli

import (
	"net/url"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
)

func TestQueues(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, _ string) {
		for _, args := range [][]string{{"-q", "mail"}, {"-q", "mail", "--priority", "9"}, {}} {
			command(t, 0, append([]string{"-b", broker, "call", "x"}, args...)...)
		}
		golden(t, "queues.txt", command(t, 0, "-b", broker, "queues", "-o", "table"))
		golden(t, "queues.plain", command(t, 0, "-b", broker, "queues", "-Q", "mail,none"))
		golden(t, "queues.json", command(t, 0, "-b", broker, "queues", "-Q", "mail,none", "-o", "json"))
	})
}

func TestNoQueues(t *testing.T) {
	t.Parallel()
	if got := command(t, 0, "-b", testservice.Miniredis(t), "queues", "-o", "json"); got != "[]\n" {
		t.Errorf("got %q, want []", got)
	}
}

// TestQuarantine looks at what a worker could not handle: a task nobody knows, and bytes that are no message.
func TestQuarantine(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		push(t, broker, "celery", "\x00\x01 not a message \xff")
		push(t, broker, "celery", "<not JSON>")
		w := startDemo(t, broker, backend)
		w.output.waitFor(t, `(?s)message quarantined.*message quarantined`)
		w.stop()
		if code := w.wait(t); code != 0 {
			t.Errorf("the worker's exit code is %d", code)
		}
		got := command(t, 0, "-b", broker, "queues", "--quarantine", "celery", "-o", "json")
		for _, want := range []string{`"queue":"celery","reason":"`, `"text":"<not JSON>"`, `"base64":"AAEgbm90IGEgbWVzc2FnZSD/"`} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in %s", want, got)
			}
		}
		got = command(t, 0, "-b", broker, "queues", "--quarantine", "celery", "--limit", "1")
		if n := strings.Count(got, "\n"); n != 1 || strings.Count(got, "\t") != 3 {
			t.Errorf("want one line of four columns, got %q", got)
		}
		got = command(t, 0, "-b", broker, "queues", "--purge-quarantine", "celery", "-o", "json")
		if got != `[{"queue":"celery","purged":2}]`+"\n" {
			t.Errorf("purge: %s", got)
		}
		if got = command(t, 0, "-b", broker, "queues", "--purge-quarantine", "celery"); got != "Purged 0 messages from the quarantine of celery.\n" {
			t.Errorf("purge again: %s", got)
		}
	})
}

// push puts bytes into a queue as no producer would.
func push(t *testing.T, broker, queue, raw string) {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(&goredis.Options{Addr: u.Host})
	defer func() { _ = client.Close() }()
	if err := client.LPush(t.Context(), queue, raw).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestPurge(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, _ string) {
		tests := []struct {
			args   []string
			stdin  string
			code   int
			stdout string
			stderr string // a part
			left   bool   // the message is still there
		}{
			{nil, "y\n", 0, "Purged 1 message from 1 known task queue.\n", "removes all tasks from queue celery at redis://", false},
			{nil, "YES\n", 0, "Purged 1 message from 1 known task queue.\n", "", false},
			{nil, "n\n", exitFailed, "", "nothing was purged", true},
			{nil, "\n", exitFailed, "", "nothing was purged", true},
			{nil, "", exitUsage, "", "there is no terminal to ask at", true},
			{[]string{"-f"}, "", 0, "Purged 1 message from 1 known task queue.\n", "", false},
			{[]string{"--yes", "-Q", "other"}, "", 0, "No messages purged from 1 queue.\n", "", true},
			{[]string{"-f", "-Q", "other,celery", "-X", "celery"}, "", 0, "No messages purged from 1 queue.\n", "", true},
			{[]string{"-f", "-Q", "other,celery", "-o", "json"}, "", 0, `[{"queue":"other","purged":0},{"queue":"celery","purged":1}]` + "\n", "", false},
		}
		for _, tt := range tests {
			command(t, 0, "-b", broker, "purge", "-f")
			command(t, 0, "-b", broker, "call", "x")
			r := run{args: append([]string{"-b", broker, "purge"}, tt.args...), stdin: strings.NewReader(tt.stdin)}
			code, stdout, stderr := r.do(t)
			if code != tt.code || stdout != tt.stdout || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("%q, %q: exit code %d, stdout %q, stderr:\n%s", tt.args, tt.stdin, code, stdout, stderr)
			}
			left := strings.HasPrefix(command(t, 0, "-b", broker, "queues", "-Q", "celery"), "celery\t1\t")
			if left != tt.left {
				t.Errorf("%q, %q: the message is still there: %v, want %v", tt.args, tt.stdin, left, tt.left)
			}
		}
	})
}
