package cli

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

// TestInspectAndControl asks and tells a worker over each broker.
func TestInspectAndControl(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		startDemo(t, broker, backend, "-c", "2")
		// With a destination they end when it has answered, whatever the timeout.
		ask := func(code int, args ...string) string {
			t.Helper()
			return command(t, code, append([]string{"-b", broker}, append(args, "-d", "w1@test", "--timeout", "20")...)...)
		}
		const id = "c0ffee00-0000-4000-8000-000000000000"
		for _, tt := range []struct{ command, want string }{
			{"status", "w1@test\tOK\n"},
			{"status -o table", "NODE     STATUS\nw1@test  OK\n"},
			{"status -j", `{"w1@test":{"ok":"pong"}}` + "\n"},
			{"status -o jsonl", `{"node":"w1@test","reply":{"ok":"pong"}}` + "\n"},
			{"status -o yaml", "w1@test:\n  ok: pong\n"},
			{"inspect ping", "w1@test\tpong\n"},
			{"inspect active", ""},
			{"inspect active -o json", `{"w1@test":[]}` + "\n"},
			{"inspect active_queues", "w1@test\tcelery\tcelery\tdirect\tcelery\t-\n"},
			{"inspect query_task " + id, ""},
			{"inspect query_task " + id + " -o table", "NODE     ID  STATE  NAME  ARGS  KWARGS\nw1@test  -\n"},
			{"control revoke " + id, "w1@test\ttasks {'" + id + "'} flagged as revoked\n"},
			{"inspect revoked", "w1@test\t" + id + "\n"},
			{"control pool_grow 2", "w1@test\tpool will grow\n"},
			{"control pool_shrink -o json", `[{"w1@test":{"ok":"pool will shrink"}}]` + "\n"},
			{"control rate_limit dev.add 10/s", "w1@test\tnew rate limit set successfully\n"},
			{"control time_limit dev.add 10 20.5", "w1@test\ttime limits set successfully\n"},
			{"control add_consumer mail", "w1@test\tadd consumer mail\n"},
			{"control heartbeat", "w1@test\tnull\n"},
			{"control election " + id + " task", "w1@test\tnull\n"},
			{"control nosuch a=1 --custom -o json", `[{"w1@test":{"error":"KeyError('nosuch')"}}]` + "\n"},
			{"inspect conf true -o jsonl", ""}, {"inspect report", ""}, {"inspect clock", ""}, {"inspect memsample", ""}, {"inspect memdump", ""},
			{"inspect stats", ""}, {"inspect registered", ""}, {"inspect reserved", ""}, {"inspect scheduled", ""}, {"inspect registered rate_limit", ""},
		} {
			got := ask(0, strings.Fields(tt.command)...)
			if tt.want != "" && got != tt.want {
				t.Errorf("%s prints %q, want %q", tt.command, got, tt.want)
			}
		}
		if got := ask(0, "inspect", "registered"); !strings.Contains(got, "w1@test\tdev.add [rate_limit=10/s]\n") {
			t.Errorf("registered prints %q", got)
		}
		if got := ask(0, "inspect", "stats"); !regexp.MustCompile(`^w1@test\t\d+\t[0-9ms]+\tgelery.worker:goroutine\t3\t\d+\t0\n$`).MatchString(got) {
			t.Errorf("stats prints %q", got)
		}
		var stats map[string]struct{ Pool map[string]any }
		if err := json.Unmarshal([]byte(ask(0, "inspect", "stats", "--json")), &stats); err != nil || stats["w1@test"].Pool["max-concurrency"] != 3.0 {
			t.Errorf("stats are %v, %v", stats, err)
		}
		// What a worker could not do is told, and no failure.
		code, stdout, stderr := run{args: []string{"-b", broker, "control", "rate_limit", "no.such", "1/s", "-d", "w1@test", "--timeout", "20"}}.do(t)
		if code != 0 || stdout != "" || stderr != "gelery: w1@test: unknown task\n" {
			t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
		}
		code, stdout, _ = run{args: []string{"-b", broker, "inspect", "objgraph", "-o", "table", "-d", "w1@test", "--timeout", "20"}}.do(t)
		if code != 0 || stdout != "" {
			t.Errorf("exit code %d, %q", code, stdout)
		}
		code, _, stderr = run{args: []string{"-b", broker, "status", "-d", "w9@test", "--timeout", "0.2"}}.do(t)
		if code != exitUnavailable || !strings.Contains(stderr, "no nodes replied within 200ms") {
			t.Errorf("exit code %d, %q", code, stderr)
		}
	})
}

// TestShutdown: a worker that answers before it stops, and one that does not, are both no failure.
func TestRemoteShutdown(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		b := startDemo(t, broker, backend)
		command(t, 0, "-b", broker, "control", "shutdown", "-d", "w1@test", "--timeout", "20")
		if code := b.wait(t); code != 0 {
			t.Errorf("the worker ends with %d", code)
		}
		command(t, 0, "-b", broker, "control", "shutdown", "--timeout", "0.1")
	})
}

func TestRemoteUsage(t *testing.T) {
	t.Parallel()
	broker := "memory://" + protocol.NewID()
	for _, tt := range []struct{ command, want string }{
		{"inspect", "an inspect command is missing"},
		{"control", "a control command is missing"},
		{"inspect activ", "unknown inspect command activ"},
		{"control active", "unknown control command active"},
		{"control election x", "write: control election id topic [action]"},
		{"control rate_limit x", "write: control rate_limit task rate"},
		{"control pool_grow many", `n: "many" is no whole number`},
		{"control pool_grow 1 2", "other arguments than these 2"}, {"inspect ping -w 1", "--watch=1"},
		{"control time_limit t soon", `soft: "soon" is no number`},
		{"inspect conf maybe", `with_defaults: "maybe" is not true or false`},
		{"control x --custom y", "no key=value pair"},
		{"status --matcher sql", `"sql" is unknown`},
		{"status --matcher pcre --pattern [", `pcre pattern "[" cannot be sent`},
		{"control shutdown --pattern [z-a]", `glob pattern "[z-a]" cannot be sent`},
		{"control shutdown --destination=", "a node name is empty"}, {"top -d a,,b", "a node name is empty"}, {"events --destination ,", "a node name is empty"},
		{"control shutdown --pattern=", "it is empty"},
		{"status --timeout 0", "--timeout is not more than 0"},
		{"status -o xml", `"xml" is not table, plain, json, jsonl or yaml`},
	} {
		code, stdout, stderr := run{args: append([]string{"-b", broker}, strings.Fields(tt.command)...)}.do(t)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, %q, want %q in %q", tt.command, code, stdout, tt.want, stderr)
		}
	}
	if code, _, stderr := (run{args: []string{"-b", broker, "status", "--timeout", "0.05"}}).do(t); code != exitUnavailable {
		t.Errorf("without workers exit code %d: %s", code, stderr)
	}
}

// TestWatchBearsBroker: a broker that goes away and comes back ends nothing.
func TestWatchBearsBroker(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (direct, host string){
		"redis":    func(t *testing.T) (string, string) { url := testservice.Redis(t); return url, hostOf(t, url) },
		"rabbitmq": func(t *testing.T) (string, string) { url := testservice.RabbitMQ(t).URL; return url, hostOf(t, url) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, host := start(t)
			proxy := testservice.NewProxy(t, host)
			startDemo(t, url, "memory://"+protocol.NewID())
			args := []string{"-b", strings.Replace(url, host, proxy.Addr, 1), "status", "-d", "w1@test", "--timeout", "1"}
			b := run{args: append(args, "--watch=0.05")}.start(t)
			b.output.waitFor(t, `w1@test\tOK\n`)
			proxy.Down()
			b.output.waitFor(t, `(?m)^gelery: .+\n`)
			proxy.Up()
			b.output.waitFor(t, `(?s)\ngelery: .+\nw1@test\tOK\n`)
			b.stop()
			if code := b.wait(t); code != exitInterrupted {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// hostOf is the host and port of a URL.
func hostOf(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// TestWatchRepeats: what is watched is shown again and again until it is interrupted.
func TestWatchRepeats(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		startDemo(t, broker, backend)
		b := run{args: []string{"-b", broker, "status", "-d", "w1@test", "--timeout", "20", "--watch=0.01"}}.start(t)
		b.output.waitFor(t, `(?:w1@test\tOK\n){3}`)
		b.stop()
		if code := b.wait(t); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	})
}
