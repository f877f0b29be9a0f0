package cli

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// TestHelp compares the help of all commands with golden files, and wants an example and exit codes in each.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "dev", "worker", "call", "result", "queues", "purge", "amqp", "amqp exchange.declare",
		"amqp exchange.delete", "amqp queue.declare", "amqp queue.bind", "amqp queue.unbind", "amqp queue.delete", "amqp queue.purge",
		"beat", "schedule", "schedule list", "schedule next", "schedule show", "schedule add", "schedule pause", "schedule resume", "schedule run", "schedule remove", "doctor", "status", "inspect", "control", "events", "top", "list", "list bindings", "report", "graph", "graph workers", "bench", "config", "config show", "config check", "config settings", "version"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := command(t, 0, strings.Fields(name+" --help")...)
			golden(t, "help"+strings.TrimSuffix("-"+strings.ReplaceAll(name, " ", "-"), "-")+".txt", got)
			if first, _, _ := strings.Cut(got, "\n"); first == "" || strings.HasSuffix(first, ".") {
				t.Errorf("the first line is no heading: %q", first)
			}
			for _, want := range []string{"Examples:\n  gelery ", "Exit codes: 0 "} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in the help", want)
				}
			}
		})
	}
}

func TestNoCommandIsHelp(t *testing.T) {
	t.Parallel()
	if command(t, 0) != command(t, 0, "--help") {
		t.Error("gelery alone and gelery --help differ")
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	plain := command(t, 0, "version")
	if !regexp.MustCompile(`^gelery \S+ (\S+ )?go1\.\S+ \w+/\w+\n$`).MatchString(plain) {
		t.Errorf("got %q", plain)
	}
	if flag := command(t, 0, "--version"); flag != plain {
		t.Errorf("--version says %q, version %q", flag, plain)
	}
	var got map[string]string
	if err := json.Unmarshal([]byte(command(t, 0, "version", "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"version", "go", "platform"} {
		if got[key] == "" {
			t.Errorf("%s is empty in %v", key, got)
		}
	}
}

// TestCompletion completes task names and offers a script for each shell.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := command(t, 0, "completion", shell); !strings.Contains(got, "gelery") {
			t.Errorf("%s: no script", shell)
		}
	}
	if got := command(t, 0, "__complete", "queues", "-o", ""); !strings.HasPrefix(got, "table\nplain\njson\njsonl\nyaml\n") {
		t.Errorf("queues -o completes to %q", got)
	}
}
