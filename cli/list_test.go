package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
)

func TestListBindings(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, _ string) {
		command(t, 0, "-b", broker, "call", "x", "-q", "mail")
		const want = `{"queue":"mail","exchange":"mail","routing_key":"mail"}`
		for form, text := range map[string]string{"plain": "mail\tmail\tmail\n", "table": "QUEUE  EXCHANGE  ROUTING KEY\nmail   mail      mail\n", "json": "[" + want + "]\n",
			"jsonl": want + "\n", "yaml": "- queue: mail\n  exchange: mail\n  routing_key: mail\n"} {
			if got := command(t, 0, "-b", broker, "list", "bindings", "-o", form); got != text {
				t.Errorf("-o %s prints %q, want %q", form, got, text)
			}
		}
		again := run{args: []string{"-b", broker, "list", "bindings", "-o", "yaml", "--watch=0.01"}}.start(t)
		again.output.waitFor(t, `^---\n- queue: mail\n  exchange: mail\n  routing_key: mail\n---\n- queue: mail\n`)
		again.stop()
		if code := again.wait(t); code != exitInterrupted {
			t.Errorf("exit code %d", code)
		}
	})
	if got := command(t, 0, "-b", testservice.Miniredis(t), "list", "bindings", "-o", "json"); got != "[]\n" {
		t.Errorf("of an empty broker %q", got)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	args := []string{"-b", "redis://:secret@localhost/3", "report"}
	text := command(t, 0, args...)
	for _, want := range []string{"software -> gelery:", "transports:amqp", "redis", "results:disabled", "broker_url: redis://"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var d reportDocument
	document := command(t, 0, append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(document), &d); err != nil || d.Version == "" || d.CPUs < 1 || len(d.Settings) != 1 {
		t.Errorf("the document is %s, %v", document, err)
	}
	again := run{args: append(args, "--watch=0.01", "-o", "yaml")}.start(t)
	again.output.waitFor(t, `^---\nversion: (?s:.*)---\nversion: `)
	again.stop()
	if code := again.wait(t); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if code, _, stderr := (run{args: append(args, "--watch=-1")}).do(t); code != exitUsage || !strings.Contains(stderr, "--watch") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if strings.Contains(text+document, "secret") {
		t.Errorf("a password is shown:\n%s%s", text, document)
	}
}

func TestGraphWorkers(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, backend string) {
		startDemo(t, broker, backend, "-c", "5")
		got := command(t, 0, "-b", broker, "--result-backend", backend, "graph", "workers", "-d", "w1@test", "--timeout", "20")
		for _, want := range []string{"digraph workers {\n", `broker [label="` + broker + `", shape=circle]`, `backend [label="` + backend,
			`worker0 [label="w1@test", shape=box]`, "worker0 -> broker;", "worker0 -> backend;", `worker0slot1 [label="slot 2", shape=oval]`,
			`worker0slot2 [label="3 more slots"`} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if code, _, _ := (run{args: []string{"-b", broker, "graph", "workers", "-d", "nobody@test", "--timeout", "0.1"}}).do(t); code != exitUnavailable {
			t.Errorf("exit code %d", code)
		}
		if code, _, _ := (run{args: []string{"-b", broker, "graph", "workers", "--wmax", "0"}}).do(t); code != exitUsage {
			t.Errorf("exit code %d", code)
		}
	})
}

// TestGraphWithoutAnswer: who refuses to tell its figures is drawn without slots, and the refusal is told.
func TestGraphWithoutAnswer(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	run{args: []string{"-b", broker, "worker", "--demo", "-n", `a"\b@test`}, env: map[string]string{"CELERY_WORKER_DISABLED_COMMANDS": "stats"}}.start(t).
		output.waitFor(t, `ready\.\n`)
	code, got, errs := run{args: []string{"-b", broker, "graph", "workers", "--timeout", "20", "-d", `a"\b@test`}}.do(t)
	want := "    worker0 [label=\"a\\\"\\\\b@test\", shape=box];\n    worker0 -> broker;\n}\n"
	if code != 0 || !strings.HasSuffix(got, want) || !strings.Contains(errs, "stats is disabled") {
		t.Errorf("exit code %d, %s\n%s", code, got, errs)
	}
}
