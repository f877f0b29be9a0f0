package cli

import (
	"strings"
	"testing"
)

// TestCallOverRPC has the broker carry results too.
func TestCallOverRPC(t *testing.T) {
	t.Parallel()
	forEachBroker(t, func(t *testing.T, broker, _ string) {
		startDemo(t, broker, "rpc://")
		for _, tt := range []struct {
			args []string
			code int
			want string // standard output
			errs string // standard error
		}{
			{[]string{"dev.add", "--args", "[2, 3]"}, exitOK, "5\n", ""},
			{[]string{"dev.progress", "-a", "[3]"}, exitOK, "3\n", ""},
			{[]string{"dev.fail"}, exitFailed, "", "Traceback (most recent call last):\nValueError: this task always fails\n"},
			{[]string{"dev.nope"}, exitFailed, "", "NotRegistered: dev.nope\n"},
		} {
			args := append(append([]string{"-b", broker, "--result-backend", "rpc://", "call"}, tt.args...), "--wait", "--timeout", "20")
			code, stdout, stderr := run{args: args}.do(t)
			if code != tt.code || stdout != tt.want || stderr != tt.errs {
				t.Errorf("%q: exit code %d, want %d\nstdout %q\n  want %q\nstderr %q\n  want %q", tt.args, code, tt.code, stdout, tt.want, stderr, tt.errs)
			}
		}
	})
}

// TestResultOverRPC: another process has it, or nobody.
func TestResultOverRPC(t *testing.T) {
	t.Parallel()
	code, stdout, stderr := run{args: []string{"--result-backend", "rpc://", "result", "x"}}.do(t)
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "reach only the client that sent the task") {
		t.Errorf("exit code %d, want %d; stdout %q, stderr:\n%s", code, exitUsage, stdout, stderr)
	}
}
