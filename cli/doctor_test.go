package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// diagnose runs doctor and returns the findings by subject.
func diagnose(t *testing.T, wantCode int, args ...string) map[string]transport.Finding {
	t.Helper()
	out := command(t, wantCode, append(args, "doctor", "-o", "json")...)
	var found []transport.Finding
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	m := map[string]transport.Finding{}
	for _, f := range found {
		m[f.Subject] = f
	}
	return m
}

func TestDoctorExitCodes(t *testing.T) {
	t.Parallel()
	bare := testservice.Redis(t)
	safe := testservice.StartRedis(t, "--appendonly", "yes").URL
	rabbit := testservice.RabbitMQ(t).URL
	const nobody = "redis://127.0.0.1:1/0"
	tests := []struct {
		name string
		code int
		args []string
	}{
		{"good", exitOK, []string{"-b", safe, "doctor"}},
		{"loses messages", exitFailed, []string{"-b", bare, "doctor"}},
		{"loses results", exitOK, []string{"-b", safe, "--result-backend", bare, "doctor"}},
		{"loses results, strictly", exitFailed, []string{"-b", safe, "--result-backend", bare, "doctor", "--strict"}},
		{"rabbit", exitOK, []string{"-b", rabbit, "doctor"}},
		{"missing queue", exitOK, []string{"-b", rabbit, "doctor", "-Q", "none"}},
		{"missing queue, strictly", exitFailed, []string{"-b", rabbit, "doctor", "-Q", "none", "--strict"}},
		{"results through the broker", exitOK, []string{"-b", rabbit, "--result-backend", "rpc://", "doctor"}},
		{"cannot be examined", exitOK, []string{"-b", "memory://doctor", "doctor"}},
		{"no broker", exitUnavailable, []string{"-b", nobody, "doctor"}},
		{"no backend", exitUnavailable, []string{"-b", safe, "--result-backend", nobody, "doctor"}},
		{"no virtual host", exitFailed, []string{"-b", rabbit + "x", "doctor"}},
		{"no URL", exitUsage, []string{"-b", "here", "doctor"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, stdout, stderr := run{args: tt.args}.do(t)
			if code != tt.code || (stdout == "") != (tt.code == exitUsage) {
				t.Errorf("exit code %d, want %d\nstdout:\n%s\nstderr:\n%s", code, tt.code, stdout, stderr)
			}
		})
	}
}

func TestDoctorOutput(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	command(t, 0, "-b", url, "call", "x", "-q", "mail")
	got := command(t, exitFailed, "-b", url, "doctor", "-o", "table")
	for _, want := range []string{"HEALTH   SUBJECT      FOUND\n", "\nerror    persistence  none: all messages are lost when Redis stops\n" +
		"                      try: set appendonly yes", "\nok       queue mail   1 waiting; 0 unacked\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	plain := command(t, exitFailed, "-b", url, "--result-backend", url, "doctor", "-Q", "other")
	for line := range strings.Lines(plain) {
		if strings.Count(line, "\t") != 3 {
			t.Errorf("no four columns in %q", line)
		}
	}
	for _, want := range []string{"\nok\tqueue other\t0 waiting; 0 unacked\t\n", "\nwarning\tresult backend: persistence\tnone: all results are lost"} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %q in\n%s", want, plain)
		}
	}
	found := diagnose(t, exitUnavailable, "-b", "redis://:secret@127.0.0.1:1/0")
	if f := found["connection"]; f.Health != transport.Broken || !strings.Contains(f.Detail, "redis://:***@127.0.0.1:1/0") || f.Advice == "" {
		t.Errorf("%+v", found)
	}
}
