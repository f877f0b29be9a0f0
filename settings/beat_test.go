package settings

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gelery/gelery/scheduler"
)

// beatOf reads a file and makes the configuration of its beat.
func beatOf(t *testing.T, text string) (Beat, error) {
	t.Helper()
	s := &Settings{}
	if err := s.ReadFile(file(t, text)); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	return s.Beat()
}

func entryNames(entries []*scheduler.Entry) []string {
	var all []string
	for _, e := range entries {
		all = append(all, e.Name)
	}
	return all
}

// TestBeat reads Celery's settings, under their old names too, RedBeat's and ours.
func TestBeat(t *testing.T) {
	t.Parallel()
	b, err := beatOf(t, `
CELERYBEAT_SCHEDULE:
  morning: {task: tasks.add, schedule: {crontab: {minute: 0, hour: 8}}, args: [1, 2], options: {queue: math, expires: 15}}
  often: {task: tasks.add, schedule: 30.0}
CELERYBEAT_SCHEDULER: "redbeat.schedulers:RedBeatScheduler"
beat_schedule_filename: /tmp/state
beat_max_loop_interval: 5
beat_cron_starting_deadline: 60
beat_expires: false
beat_files: [a.yaml, b.json]
beat_health_addr: "8080"
beat_database_url: postgresql://h/d
redbeat_redis_url: redis://h/3
redbeat_redis_options: {socket_timeout: 3}
redbeat_key_prefix: "mine:"
redbeat_lock_timeout: 25
timezone: Europe/Berlin
`)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"morning", "often"}, entryNames(b.Entries)); d != "" {
		t.Error(d)
	}
	berlin := time.Date(2026, 1, 1, 7, 0, 0, 0, time.UTC)
	if next := b.Entries[0].Schedule.Next(berlin.Add(-time.Hour)); !next.Equal(berlin) {
		t.Errorf("8 o'clock in Berlin is %v", next.UTC())
	}
	want := Beat{Scheduler: RedBeatScheduler, StateFile: "/tmp/state", Files: []string{"a.yaml", "b.json"}, HealthAddr: "8080",
		Loop:        scheduler.Config{MaxInterval: 5 * time.Second, CronDeadline: time.Minute, KeepExpired: true},
		DatabaseURL: "postgresql://h/d", RedisURL: "redis://h/3", RedisOptions: map[string]any{"socket_timeout": int64(3)}, KeyPrefix: "mine:",
		LockTimeout: 25 * time.Second}
	if d := cmp.Diff(want, b, cmpopts.IgnoreFields(Beat{}, "Entries", "Zone"), cmpopts.IgnoreUnexported(Beat{})); d != "" {
		t.Error(d)
	}
}

func TestBeatDefaults(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Beat{
		"{}":                     {Scheduler: LocalScheduler, StateFile: DefaultStateFile, Zone: time.UTC},
		"redbeat_lock_key: null": {Scheduler: LocalScheduler, StateFile: DefaultStateFile, NoLock: true, Zone: time.UTC},
	} {
		b, err := beatOf(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, b, cmp.Comparer(func(a, b *time.Location) bool { return a == b }), cmpopts.IgnoreUnexported(Beat{})); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

// TestBeatMistakes: each is told with its entry and its field, and the other entries are there.
func TestBeatMistakes(t *testing.T) {
	t.Parallel()
	b, err := beatOf(t, `
beat_schedule:
  good: {task: a, schedule: 1}
  impossible: {task: a, schedule: "0 0 30 2 *", argz: []}
  nothing: null
`)
	if d := cmp.Diff([]string{"good"}, entryNames(b.Entries)); d != "" {
		t.Error(d)
	}
	var entry *scheduler.EntryError
	if !errors.As(err, &entry) {
		t.Fatalf("%v", err)
	}
	for _, part := range []string{`:2: beat_schedule: entry "impossible": argz: there is no such field; is it args?`, `entry "impossible": schedule: `,
		`entry "nothing": it is a map of task, schedule and more`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in\n%v", part, err)
		}
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 3 {
		t.Errorf("%d lines, not 3:\n%v", n, err)
	}
}

// TestCleanupEntry: celery.backend_cleanup is there if results do not expire by themselves, unless the user has an entry of this name.
func TestCleanupEntry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"result_backend: redis://h":                           "",
		"result_backend: db+sqlite:///x":                      "0 4 * * *",
		"result_backend: file:///x":                           "0 4 * * *",
		"{result_backend: db+sqlite:///x, result_expires: 0}": "",
		"{result_backend: db+sqlite:///x, beat_schedule: {celery.backend_cleanup: {task: celery.backend_cleanup, schedule: 0 1 * * *}}}": "0 1 * * *",
	} {
		b, err := beatOf(t, text)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, e := range b.Entries {
			f := e.Schedule.(*scheduler.Crontab).Fields()
			got += strings.Join([]string{f.Minute, f.Hour, f.DayOfMonth, f.MonthOfYear, f.DayOfWeek}, " ")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
