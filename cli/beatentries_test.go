package cli

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/scheduler"
	"github.com/gelery/gelery/settings"
	"github.com/gelery/gelery/task"
)

// Entries that cannot be, and two of one name, stop no beat: the program's count.
func TestEntriesLeftOut(t *testing.T) {
	t.Parallel()
	every, err := scheduler.Every(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	config, dir := scheduleFile(t, "beat_schedule:\n  both: {task: of.settings, schedule: 60}\n  settings: {task: of.settings, schedule: 60}\n")
	if err := os.WriteFile(filepath.Join(dir, "entries.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(config)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	a := &app{settings: s, entries: []*scheduler.Entry{
		{Name: "both", Schedule: every, Task: task.S("of.program")}, {Name: "no schedule", Task: task.S("of.program")},
		{Name: "program", Schedule: every, Task: task.S("of.program")},
	}}
	store, err := a.openBeatStore(t.Context(), "amqp://localhost", true, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r, err := range store.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[r.Entry.Name] = r.Entry.Task.Name()
	}
	if len(got) != 3 || got["both"] != "of.program" || got["program"] != "of.program" || got["settings"] != "of.settings" {
		t.Errorf("entries %v", got)
	}
	if log := out.String(); strings.Count(log, "an entry is left out") != 2 || !strings.Contains(log, "both") || !strings.Contains(log, "no schedule") {
		t.Errorf("the log:\n%s", log)
	}
}

// TestMistakeRemovesNothing: an entry of beat_schedule that gets a mistake stays in Redis as it was; one that is gone from it does not.
func TestMistakeRemovesNothing(t *testing.T) {
	t.Parallel()
	config, _ := scheduleFile(t, "")
	broker := testservice.Redis(t)
	const mended, broken = `{task: dev.add, schedule: "0 2 * * *"}`, `{task: dev.add, schedule: "0 30 2 * * *", arg: 1}`
	for _, step := range []struct{ settings, want string }{
		{"beat_schedule:\n  kept: " + mended + "\n  other: " + mended + "\n  gone: " + mended, "gone kept other"},
		{"beat_schedule:\n  kept: " + broken + "\n  other: " + broken, "kept other"},
		{"beat_schedule:\n  kept: " + broken, "kept"},
	} {
		if err := os.WriteFile(config, []byte(step.settings), 0o600); err != nil {
			t.Fatal(err)
		}
		b := run{args: []string{"-b", broker, "--config", config, "beat", "-l", "INFO", "-S", "redbeat"}}.start(t)
		b.output.waitFor(t, `beat: leading`)
		b.stop()
		if code := b.wait(t); code != exitOK {
			t.Errorf("exit code %d", code)
		}
		var names []string
		for line := range strings.Lines(command(t, 0, "-b", broker, "schedule", "list", "-o", "plain", "-S", "redbeat")) {
			name, _, _ := strings.Cut(line, "\t")
			names = append(names, name)
		}
		if got := strings.Join(names, " "); got != step.want {
			t.Errorf("there are %q, not %q", got, step.want)
		}
	}
}
