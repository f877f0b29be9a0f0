package cli

import (
	"log/slog"
	"strings"
	"testing"
	"time"

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
	config, _ := scheduleFile(t, "beat_schedule:\n  both: {task: of.settings, schedule: 60}\n  settings: {task: of.settings, schedule: 60}\n")
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
