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
		document := command(t, 0, "-b", broker, "queues", "-Q", "mail,none", "-o", "json")
		golden(t, "queues.json", document)
		lines := command(t, 0, "-b", broker, "queues", "-Q", "mail,none", "-o", "jsonl")
		if got := "[" + strings.Replace(strings.TrimSpace(lines), "\n", ",", 1) + "]\n"; got != document {
			t.Errorf("the lines are %q", lines)
		}
		again := run{args: []string{"-b", broker, "queues", "-Q", "mail", "-o", "yaml", "--watch=0.01"}}.start(t)
		again.output.waitFor(t, `^---\n- queue: mail\n  messages: 2\n(?s:.*)---\n- queue: mail\n`)
		again.stop()
		if code := again.wait(t); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestNoQueues(t *testing.T) {
	t.Parallel()
	if got := command(t, 0, "-b", testservice.Miniredis(t), "queues", "-o", "json"); got != "[]\n" {
		t.Errorf("got %q, want []", got)
	}
}

// TestWrongTypeOfKey: one bad key is named, with what to do about it, and hides no other queue.
func TestWrongTypeOfKey(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, _ string) {
		command(t, 0, "-b", broker, "call", "x", "-q", "good")
		client := redisClient(t, broker)
		for _, key := range []string{"bad", "b b\x06\x163", "_gelery.quarantine.bad"} {
			if err := client.Set(t.Context(), key, "x", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
		const wrong = ": WRONGTYPE Operation against a key holding the wrong kind of value"
		const twoFailures = "gelery: cannot read all of queue bad\n" +
			`  why: key "bad"` + wrong + `; key "_gelery.quarantine.bad"` + wrong + "\n" +
			"  try: in redis-cli: TYPE bad tells what it is, RENAME bad bad.moved moves it away\n" +
			"gelery: cannot read all of queue b b\n" +
			`  why: key "b b\x06\x163"` + wrong + "\n" +
			`  try: in redis-cli: TYPE "b b\x06\x163" tells what it is, RENAME "b b\x06\x163" "b b\x06\x163.moved" moves it away` + "\n"
		tests := []struct {
			args           []string
			stdout, stderr string
		}{
			{[]string{"queues", "-Q", "bad,good,b b"}, "bad\t-\t0\t0\t-\t3:0 6:0 9:0\ngood\t1\t0\t0\t0\t0:1 3:0 6:0 9:0\nb b\t-\t0\t0\t0\t0:0 6:0 9:0\n", twoFailures},
			{[]string{"queues", "-Q", "bad,good", "-o", "json"}, `[{"queue":"bad","messages":-1,"by_priority":{"3":0,"6":0,"9":0},"unacked":0,"delayed":0,"quarantined":-1,` +
				`"error":"key \"bad\"` + wrong + `; key \"_gelery.quarantine.bad\"` + wrong + `"},` +
				`{"queue":"good","messages":1,"by_priority":{"0":1,"3":0,"6":0,"9":0},"unacked":0,"delayed":0,"quarantined":0}]` + "\n",
				twoFailures[:strings.Index(twoFailures, "gelery: cannot read all of queue b b")]},
			{[]string{"queues", "--quarantine", "bad"}, "", "gelery: a key of the broker is not what it should be\n" +
				`  why: key "_gelery.quarantine.bad"` + wrong + "\n" +
				"  try: in redis-cli: TYPE _gelery.quarantine.bad tells what it is, RENAME _gelery.quarantine.bad _gelery.quarantine.bad.moved moves it away\n"},
			{[]string{"purge", "-f", "-Q", "bad"}, "", "gelery: a key of the broker is not what it should be\n" +
				`  why: purge queue bad: key "bad"` + wrong + "\n" +
				"  try: in redis-cli: TYPE bad tells what it is, RENAME bad bad.moved moves it away\n"},
		}
		for _, tt := range tests {
			code, stdout, stderr := run{args: append([]string{"-b", broker}, tt.args...)}.do(t)
			if code != exitFailed || stdout != tt.stdout || stderr != tt.stderr {
				t.Errorf("%q: exit code %d\nstdout %q\n  want %q\nstderr %q\n  want %q", tt.args, code, stdout, tt.stdout, stderr, tt.stderr)
			}
		}
		code, stdout, stderr := run{args: []string{"-b", broker, "call", "x", "-q", "bad"}}.do(t)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, "WRONGTYPE ") || !strings.Contains(stderr, "TYPE") ||
			strings.Contains(stderr, "check the URL") || strings.Count(stderr, "\n") != 3 {
			t.Errorf("call: exit code %d, stdout %q, stderr:\n%s", code, stdout, stderr)
		}
	})
}

func TestMoveWrongKey(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`push to list "q": WRONGTYPE Operation`:                                "in redis-cli: TYPE q tells what it is, RENAME q q.moved moves it away",
		`publish to redis://h: push to list "a\"b": publish: WRONGTYPE Op`:     `in redis-cli: TYPE "a\"b" tells what it is, RENAME "a\"b" "a\"b.moved" moves it away`,
		`key "_kombu.binding.x": bindings of exchange "x": WRONGTYPE Operatio`: "in redis-cli: TYPE _kombu.binding.x tells what it is, RENAME _kombu.binding.x _kombu.binding.x.moved moves it away",
		`publish: WRONGTYPE Operation`:                                         "find the key of another type with TYPE in redis-cli, a queue's is a list, and move it away with RENAME",
		`key "q": OOM command not allowed`:                                     "",
		`dial tcp 127.0.0.1:1: connection refused`:                             "",
	} {
		if got := moveWrongKey(text); got != want {
			t.Errorf("%s: got  %s\nwant %s", text, got, want)
		}
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

// redisClient is a plain client of a broker, for what no producer would do.
func redisClient(t *testing.T, broker string) *goredis.Client {
	t.Helper()
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	client := goredis.NewClient(&goredis.Options{Addr: u.Host})
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// push puts bytes into a queue.
func push(t *testing.T, broker, queue, raw string) {
	t.Helper()
	if err := redisClient(t, broker).LPush(t.Context(), queue, raw).Err(); err != nil {
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
			{[]string{"-f", "-Q", "other,celery", "-o", "jsonl"}, "", 0, `{"queue":"other","purged":0}` + "\n" + `{"queue":"celery","purged":1}` + "\n", "", false},
			{[]string{"-f", "-o", "yaml"}, "", 0, "- queue: celery\n  purged: 1\n", "", false},
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
