package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/task"
)

// TestUpcoming: what is overdue comes now, as its policy says, and then what the schedule says.
func TestUpcoming(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC)
	minutes, err := ParseCrontab("* * * * *", nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		e    Entry
		last time.Time
		want string
	}{
		{"on time", Entry{}, now.Add(-30 * time.Second), "12:01:00 12:02:00 12:03:00"},
		{"missed", Entry{}, now.Add(-10 * time.Minute), "12:00:30 12:01:00 12:02:00"},
		{"missed, two of them", Entry{Missed: 2}, now.Add(-10 * time.Minute), "12:00:30 12:00:30 12:01:00"},
		{"missed, none", Entry{Missed: MissedNone}, now.Add(-10 * time.Minute), "12:01:00 12:02:00 12:03:00"},
		{"never ran", Entry{}, time.Time{}, "12:00:30 12:01:00 12:02:00"},
		{"one-off", Entry{OneOff: true}, now, "12:01:00"},
		{"start", Entry{Start: now.Add(time.Hour)}, now, "13:01:00 13:02:00 13:03:00"},
		{"end", Entry{End: now.Add(time.Minute)}, now, "12:01:00"},
		{"once", Entry{Schedule: Clocked{now.Add(time.Hour)}}, now, "13:00:30"},
		{"once, over", Entry{Schedule: Clocked{now.Add(-time.Hour)}}, now, ""},
	}
	for _, tt := range tests {
		tt.e.Name = "e"
		if tt.e.Schedule == nil {
			tt.e.Schedule = minutes
		}
		var got []string
		for _, at := range tt.e.Upcoming(State{LastRunAt: tt.last}, now, 3) {
			got = append(got, at.Format(time.TimeOnly))
		}
		if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestRunNow: an id of its own each time, and the headers of a run.
func TestRunNow(t *testing.T) {
	t.Parallel()
	minutes, _ := ParseCrontab("* * * * *", nil)
	e := Entry{Name: "e", Schedule: minutes, Task: task.S("tasks.add", 1, 2).With(task.Queue("math"))}
	seen := map[any]bool{}
	for range 2 {
		sig, err := e.RunNow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		wire, err := sig.Wire()
		if err != nil {
			t.Fatal(err)
		}
		headers, _ := wire.Options["headers"].(map[string]any)
		if id := wire.Options["task_id"]; id == nil || seen[id] || headers[NameHeader] != "e" || wire.Options["queue"] != "math" || wire.Options["expires"] == nil {
			t.Errorf("options %v", wire.Options)
		} else {
			seen[id] = true
		}
	}
}

// TestApply: the configuration adds a deadline to crontabs that have none, and the store still gets the entry it knows.
func TestApply(t *testing.T) {
	t.Parallel()
	minutes, _ := ParseCrontab("* * * * *", nil)
	every, _ := Every(time.Minute)
	c := Config{CronDeadline: time.Minute}
	for _, tt := range []struct {
		e    Entry
		want time.Duration
	}{
		{Entry{Schedule: minutes}, time.Minute}, {Entry{Schedule: every}, 0}, {Entry{Schedule: minutes, Deadline: time.Second}, time.Second},
		{Entry{Schedule: minutes, Missed: MissedNone}, 0},
	} {
		if got := c.apply(&tt.e); got.Deadline != tt.want || got.KeepExpired {
			t.Errorf("%+v: %+v", tt.e, got)
		}
	}
	if got := (&Config{KeepExpired: true}).apply(&Entry{Schedule: every}); !got.KeepExpired {
		t.Error("KeepExpired is lost")
	}
}
