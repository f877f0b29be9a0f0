package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/gelery/gelery/settings"
	"github.com/gelery/gelery/task"
)

func TestURLs(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name                 string
		flag, backendFlag    string
		env                  map[string]string
		read, write, backend string
	}{
		{name: "nothing", read: defaultBroker, write: defaultBroker},
		{name: "flag wins", flag: "redis://f", env: map[string]string{"CELERY_BROKER_URL": "redis://e",
			"CELERY_BROKER_READ_URL": "redis://r"}, read: "redis://f", write: "redis://f"},
		{name: "one for both", env: map[string]string{"CELERY_BROKER_URL": "redis://e"}, read: "redis://e", write: "redis://e"},
		{name: "one each", env: map[string]string{"CELERY_BROKER_URL": "redis://e", "CELERY_BROKER_READ_URL": "redis://r",
			"CELERY_BROKER_WRITE_URL": "redis://w"}, read: "redis://r", write: "redis://w"},
		{name: "backend", env: map[string]string{"CELERY_RESULT_BACKEND": "redis://b"}, read: defaultBroker, write: defaultBroker,
			backend: "redis://b"},
		{name: "backend flag", backendFlag: "redis://f", env: map[string]string{"CELERY_RESULT_BACKEND": "redis://b"},
			read: defaultBroker, write: defaultBroker, backend: "redis://f"},
		{name: "disabled", env: map[string]string{"CELERY_RESULT_BACKEND": "disabled://"}, read: defaultBroker, write: defaultBroker},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := run{env: tt.env}.app(nil, nil)
			a.broker, a.backend = tt.flag, tt.backendFlag
			if err := a.loadSettings(&cobra.Command{Use: "x"}, nil); err != nil {
				t.Fatal(err)
			}
			got := []string{a.brokerURL("READ"), a.brokerURL("WRITE"), a.backendURL()}
			if d := cmp.Diff([]string{tt.read, tt.write, tt.backend}, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// TestEnvironment reads flags of the worker from their variables.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	a := run{env: map[string]string{
		"CELERY_WORKER_CONCURRENCY": "7", "CELERY_WORKER_QUEUES": "a,b", "CELERY_WORKER_LOGLEVEL": "ERROR",
		"CELERY_ACCEPT_CONTENT": "json,yaml", "CELERY_WORKER_ACCEPT_CONTENT": "msgpack",
		"CELERY_TASK_TRACK_STARTED": "true", "CELERY_WORKER_POOL": "prefork", "CELERY_WORKER_STOP_TIMEOUT": "1.5",
	}}.app(nil, nil)
	f := &workerFlags{}
	cmd := &cobra.Command{Use: "worker", GroupID: groupRun}
	f.add(cmd, "WARNING")
	addForeignFlags(cmd.Flags(), foreignWorker)
	if err := cmd.ParseFlags([]string{"-l", "DEBUG"}); err != nil {
		t.Fatal(err)
	}
	if err := a.prepare(cmd, nil); err != nil {
		t.Fatal(err)
	}
	c := a.settings.Worker()
	got := []any{c.Concurrency, c.Queues, f.level, a.settings.Client().AcceptContent, c.TrackStarted, c.StopTimeout, c.PrefetchMultiplier}
	want := []any{7, []string{"a", "b"}, "DEBUG", []string{"msgpack"}, true, 1500 * time.Millisecond, 0}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestQueueSettings: a flag is for all queues, Celery's variables are for the default one or for those made up.
func TestQueueSettings(t *testing.T) {
	t.Parallel()
	celery := map[string]string{
		"CELERY_TASK_DEFAULT_QUEUE_TYPE": "quorum", "CELERY_TASK_DEFAULT_EXCHANGE_TYPE": "topic",
		"CELERY_TASK_CREATE_MISSING_QUEUE_EXCHANGE_TYPE": "fanout", "CELERY_TASK_QUEUE_MAX_PRIORITY": "10",
	}
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want task.Config
	}{
		{"nothing", nil, nil, task.Config{}},
		{"flags", []string{"--queue-type", "quorum", "--exchange-type", "topic", "--max-priority", "9"}, nil,
			task.Config{QueueType: "quorum", CreateMissingQueueType: "quorum", ExchangeType: "topic",
				CreateMissingQueueExchangeType: "topic", QueueMaxPriority: 9}},
		{"variables", nil, celery, task.Config{QueueType: "quorum", ExchangeType: "topic",
			CreateMissingQueueExchangeType: "fanout", QueueMaxPriority: 10}},
		{"both", []string{"--exchange-type", "direct"}, celery, task.Config{QueueType: "quorum", ExchangeType: "direct",
			CreateMissingQueueExchangeType: "direct", QueueMaxPriority: 10}},
		{"the flag's own variable", nil, map[string]string{"CELERY_CALL_QUEUE_TYPE": "quorum", "CELERY_TASK_DEFAULT_QUEUE_TYPE": "classic"},
			task.Config{QueueType: "quorum", CreateMissingQueueType: "quorum"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := run{env: tt.env}.app(nil, nil)
			cmd := &cobra.Command{Use: "call", GroupID: groupCall}
			addQueueFlags(cmd)
			if err := cmd.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			if err := a.prepare(cmd, nil); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, a.settings.Client()); d != "" {
				t.Error(d)
			}
		})
	}
	for _, command := range []string{"worker", "call t"} {
		args := append(strings.Fields(command), "-b", "memory://none", "--queue-type", "stream")
		code, _, stderr := run{args: args}.do(t)
		if code != exitUsage || !strings.Contains(stderr, `"stream" is not allowed; allowed: one of classic, quorum`) {
			t.Errorf("%s: exit code %d, stderr:\n%s", command, code, stderr)
		}
	}
}

func TestEnvironmentMistake(t *testing.T) {
	t.Parallel()
	code, _, stderr := run{args: []string{"worker"}, env: map[string]string{"CELERY_WORKER_CONCURRENCY": "many"}}.do(t)
	if code != exitUsage || !strings.Contains(stderr, "variable CELERY_WORKER_CONCURRENCY") {
		t.Errorf("exit code %d, stderr:\n%s", code, stderr)
	}
}

func TestConfigModuleHint(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"queues": true, "version": false} {
		_, _, stderr := run{args: []string{"-b", "x://", name}, env: map[string]string{"CELERY_CONFIG_MODULE": "proj.conf"}}.do(t)
		if got := strings.Contains(stderr, "hint: CELERY_CONFIG_MODULE names a Python module (proj.conf)"); got != want {
			t.Errorf("%s: hint %v, want %v; stderr:\n%s", name, got, want, stderr)
		}
	}
}

func TestParseSeconds(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want time.Duration
		bad  bool
	}{
		{in: "5", want: 5 * time.Second},
		{in: "0.5", want: 500 * time.Millisecond},
		{in: "1m30s", want: 90 * time.Second},
		{in: "0", want: 0},
		{in: "-1", bad: true},
		{in: "-1s", bad: true},
		{in: "nan", bad: true},
		{in: "1e99", bad: true},
		{in: "soon", bad: true},
		{in: "", bad: true},
	}
	for _, tt := range tests {
		got, err := settings.ParseSeconds(tt.in)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%q: %v, %v; want %v, error %v", tt.in, got, err, tt.want, tt.bad)
		}
	}
}

func TestParseMoment(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	tests := []struct {
		in            string
		want, expires time.Time // zero: an error
	}{
		{"2026-01-02T03:04:05+02:00", time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC)},
		{"2026-01-02T03:04:05", time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"1700000000.5", time.Unix(1700000000, 5e8), time.Unix(1700000000, 5e8)}, // no count of seconds is so large
		{"60", time.Unix(60, 0), now.Add(time.Minute)},
		{"+10m", now.Add(10 * time.Minute), now.Add(10 * time.Minute)},
		{"10m", time.Time{}, now.Add(10 * time.Minute)},
		{"+x", time.Time{}, time.Time{}},
		{"", time.Time{}, time.Time{}},
	}
	for _, tt := range tests {
		got, err := parseMoment(tt.in, now)
		if err != nil != tt.want.IsZero() || err == nil && !got.Equal(tt.want) {
			t.Errorf("%q: %v, %v; want %v", tt.in, got, err, tt.want)
		}
		got, err = parseExpires(tt.in, now)
		if err != nil != tt.expires.IsZero() || err == nil && !got.Equal(tt.expires) {
			t.Errorf("expires %q: %v, %v; want %v", tt.in, got, err, tt.expires)
		}
	}
}

func TestOptionMap(t *testing.T) {
	t.Parallel()
	got, err := optionMap("transport-option", []string{"visibility_timeout=7200", "global_keyprefix=app-", "priority_steps=[0,5]",
		"ssl=true", "a=b=c", "empty="})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"visibility_timeout": int64(7200), "global_keyprefix": "app-", "priority_steps": []any{int64(0), int64(5)},
		"ssl": true, "a": "b=c", "empty": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := optionMap("transport-option", []string{"=x"}); err == nil {
		t.Error("a pair without a key was taken")
	}
}
