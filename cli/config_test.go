package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
)

// settingsFile writes a file of settings.
func settingsFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gelery.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfigShow tells every value with its origin, and no secret.
func TestConfigShow(t *testing.T) {
	t.Parallel()
	path := settingsFile(t, "broker_url: redis://u:GEHEIM@h\nworker_concurrency: 3\nredis_password: GEHEIM\nbroker_transport_options: {visibility_timeout: 60}\n")
	vars := map[string]string{"CELERY_CONFIG_FILE": path, "CELERY_TASK_TIME_LIMIT": "1m30s"}
	code, stdout, stderr := run{args: []string{"config", "show", "--result-backend", "redis://:GEHEIM@r"}, env: vars}.do(t)
	want := `broker_transport_options: {"visibility_timeout":60}  # ` + path + `:4
broker_url: "redis://u:***@h"  # ` + path + `:1
redis_password: "********"  # ` + path + `:3
result_backend: "redis://:***@r"  # option --result-backend
task_time_limit: 90  # variable CELERY_TASK_TIME_LIMIT
worker_concurrency: 3  # ` + path + ":2\n"
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit code %d, stderr %q, stdout\n%s\nwant\n%s", code, stderr, stdout, want)
	}
	code, stdout, _ = run{args: []string{"--config", path, "config", "show", "--all", "-o", "json"}}.do(t)
	var documents []configDocument
	if err := json.Unmarshal([]byte(stdout), &documents); err != nil || code != 0 || len(documents) < 50 {
		t.Errorf("exit code %d, %v, %d documents", code, err, len(documents))
	}
	if strings.Contains(stdout, "GEHEIM") {
		t.Error("a secret is shown")
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	good := settingsFile(t, "task_time_limit: 5\nimports: [a]\n")
	code, stdout, stderr := run{args: []string{"config", "check", good}}.do(t)
	if code != 0 || stdout != good+": 2 settings, no mistake\n" || stderr != "without an effect here: imports: it is Python's alone\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	bad := settingsFile(t, "task_time_limt: 5\nworker_concurrency: many\n")
	code, stdout, stderr = run{args: []string{"config", "check", bad}}.do(t)
	want := bad + ":1: task_time_limt: there is no such setting; did you mean task_time_limit?\n" +
		bad + `:2: worker_concurrency: "many" is not allowed; allowed: a whole number from 0 to 100000` + "\n"
	if code != exitFailed || stdout != "" || stderr != want {
		t.Errorf("exit code %d, stdout %q, stderr\n%s\nwant\n%s", code, stdout, stderr, want)
	}
	// What only a worker refuses is a mistake of the file too.
	lone := settingsFile(t, "worker_deduplicate_successful_tasks: true\n")
	code, _, stderr = run{args: []string{"config", "check", lone}}.do(t)
	if code != exitFailed || !strings.HasPrefix(stderr, lone+":1: worker_deduplicate_successful_tasks: it needs a result backend") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	// The same file ends every other command before it does anything.
	code, _, stderr = run{args: []string{"--config", bad, "queues"}}.do(t)
	if code != exitUsage || !strings.Contains(stderr, "2 mistakes in the settings") || !strings.Contains(stderr, bad+":2") {
		t.Errorf("exit code %d, stderr\n%s", code, stderr)
	}
	if code, _, _ = (run{args: []string{"--config", bad, "version"}}).do(t); code != 0 {
		t.Error("version looks at the settings")
	}
}

// TestWorkerFromFile runs a worker that is configured by a file, a variable, options and arguments behind "--".
func TestWorkerFromFile(t *testing.T) {
	t.Parallel()
	broker := testservice.Miniredis(t)
	path := settingsFile(t, "broker_url: "+broker+"\nresult_backend: "+broker+"\ntask_default_queue: from-file\nworker_concurrency: 2\nimports: [x]\n")
	b := run{args: []string{"--config", path, "worker", "-n", "w1@test", "--demo", "-l", "INFO", "--", "task.default_rate_limit=100/s", "_concurrency=3"}}.start(t)
	b.output.waitFor(t, `(?s)settings without an effect here settings="imports.*concurrency: 3 .*\.> from-file\n.*w1@test ready\.\n`)
	if got := command(t, 0, "--config", path, "call", "dev.add", "-a", "[2, 3]", "--wait"); got != "5\n" {
		t.Errorf("got %q", got)
	}
	b.output.waitFor(t, `Task dev\.add\[[-0-9a-f]+\] succeeded in [0-9.]+s: 5\n`)
	b.stop()
	b.wait(t)
	code, _, stderr := run{args: []string{"worker", "--", "nothing=1"}}.do(t)
	if code != exitUsage || !strings.Contains(stderr, "argument nothing: nothing: there is no such setting") {
		t.Errorf("exit code %d, stderr\n%s", code, stderr)
	}
}

func TestConfigSettings(t *testing.T) {
	t.Parallel()
	if got := command(t, 0, "config", "settings", "-o", "plain"); !strings.Contains(got, "task_acks_late\ttrue/false\ttrue\t") {
		t.Errorf("got %s", got)
	}
}
