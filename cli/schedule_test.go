package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/internal/testservice"
)

// scheduleRun runs a schedule command that must end with a code.
func scheduleRun(t *testing.T, code int, config, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := run{args: append([]string{"--config", config, "schedule"}, args...), stdin: strings.NewReader(stdin)}.do(t)
	if got != code {
		t.Fatalf("%q: exit code %d, want %d: %s", args, got, code, stderr)
	}
	return stdout, stderr
}

// writeEntries writes the file of entries that scheduleFile names.
func writeEntries(t *testing.T, folder, text string) (read func() string) {
	t.Helper()
	path := filepath.Join(folder, "entries.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() string {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// TestScheduleLocal changes what is in a file, and tells where the rest is to be changed.
func TestScheduleLocal(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, "beat_schedule:\n  hourly: {task: dev.add, schedule: 0 * * * *, timezone: Europe/Berlin}\n")
	schedule := func(code int, stdin string, args ...string) (stdout, stderr string) {
		t.Helper()
		return scheduleRun(t, code, config, stdin, args...)
	}
	schedule(0, "", "add", "sun", "--task", "dev.echo", "--solar", "sunset,52.5,13.4", "--args", "[1]", "--queue", "q", "--jitter", "10s")
	if _, stderr := schedule(1, "", "add", "sun", "--task", "dev.echo", "--every", "1m"); !strings.Contains(stderr, "give --replace") {
		t.Errorf("an entry that is there: %s", stderr)
	}
	shown, _ := schedule(0, "", "show", "sun")
	schedule(0, shown, "add", "--file", "-", "--replace")
	schedule(0, "", "pause", "sun")
	out, _ := schedule(0, "", "list", "-o", "json")
	var all []entryDocument
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if (all[i].Next != nil) != (all[i].Name == "hourly") || all[i].LastRunAt == nil {
			t.Errorf("%+v", all[i])
		}
		all[i].Next, all[i].LastRunAt = nil, nil
	}
	want := []entryDocument{
		{Name: "hourly", Task: "dev.add", Schedule: "0 * * * *", Timezone: "Europe/Berlin", Enabled: true, Source: "beat_schedule (" + config + ":1)", Fixed: true},
		{Name: "sun", Task: "dev.echo", Schedule: "sunset at 52.5, 13.4", Source: filepath.Join(folder, "entries.yaml")},
	}
	if d := cmp.Diff(want, all); d != "" {
		t.Error(d)
	}
	schedule(0, "", "resume", "sun")
	if out, _ := schedule(0, "", "list", "-o", "name"); out != "hourly\nsun\n" {
		t.Errorf("names %q", out)
	}
	out, _ = schedule(0, "", "next", "hourly", "-n", "3")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "in ") || !strings.Contains(lines[0], ":00:00 CE") || !strings.HasSuffix(lines[0], "\thourly") {
		t.Errorf("next says\n%s", out)
	}
	if _, stderr := schedule(1, "", "pause", "hourly"); !strings.Contains(stderr, "try: change it where it is defined: beat_schedule ("+config) {
		t.Errorf("an entry of the settings: %s", stderr)
	}
	if _, stderr := schedule(1, "", "pause", "hurly"); !strings.Contains(stderr, "there is no entry hurly") {
		t.Errorf("an entry that is not there: %s", stderr)
	}
	schedule(1, "son\n", "remove", "sun")
	schedule(2, "", "remove", "sun")
	schedule(0, "sun\n", "remove", "sun")
	if text, err := os.ReadFile(filepath.Join(folder, "entries.yaml")); err != nil || strings.Contains(string(text), "sun") {
		t.Errorf("the file holds %q, %v", text, err)
	}
}

// TestScheduleUnreadable: an entry that cannot be read takes its name, and can be told of, replaced and removed.
func TestScheduleUnreadable(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, "")
	const before = "bad:\n  task: dev.add\n  schedule: often\n  deadline: never\n"
	entries := writeEntries(t, folder, before)
	if _, stderr := scheduleRun(t, 1, config, "", "add", "bad", "--task", "dev.echo", "--every", "60"); !strings.Contains(stderr, "give --replace") {
		t.Errorf("add says %s", stderr)
	}
	for _, args := range [][]string{{"pause", "bad"}, {"show", "bad"}} {
		if _, stderr := scheduleRun(t, 2, config, "", args...); !strings.Contains(stderr, "deadline: ") {
			t.Errorf("%q says %s", args, stderr)
		}
	}
	if text := entries(); text != before {
		t.Errorf("the file was changed:\n%s", text)
	}
	scheduleRun(t, 0, config, "", "add", "bad", "--task", "dev.echo", "--every", "60", "--replace")
	if text := entries(); !strings.Contains(text, "dev.echo") {
		t.Errorf("the entry was not replaced:\n%s", text)
	}
	writeEntries(t, folder, before)
	scheduleRun(t, 0, config, "bad\n", "remove", "bad")
	if text := entries(); strings.Contains(text, "bad") {
		t.Errorf("the entry was not removed:\n%s", text)
	}
}

// TestScheduleNever: what would never be sent is not added, but paused.
func TestScheduleNever(t *testing.T) {
	t.Parallel()
	config, _ := scheduleFile(t, "")
	for field, args := range map[string][]string{
		"at: 2020-01-01T00:00:00Z": {"--at", "2020-01-01"},
		"end: ":                    {"--every", "10", "--end", "2020-01-01"},
		"before 2099-01-01":        {"--at", "2100-01-01", "--end", "2099-01-01"},
	} {
		if _, stderr := scheduleRun(t, 2, config, "", append([]string{"add", "never", "--task", "dev.echo"}, args...)...); !strings.Contains(stderr, field) {
			t.Errorf("%q: no %q in %s", args, field, stderr)
		}
	}
	scheduleRun(t, 0, config, "", "add", "over", "--task", "dev.echo", "--at", "2020-01-01", "--paused")
	if out, _ := scheduleRun(t, 0, config, "", "list", "-o", "name"); out != "over\n" {
		t.Errorf("list says %q", out)
	}
}

// TestScheduleAddFile: of a file with a mistake, or with a name that is taken, nothing is added; beside it no flag may define an entry.
func TestScheduleAddFile(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, "")
	const before = "c: {task: dev.add, schedule: 60}\n"
	entries := writeEntries(t, folder, before)
	for text, want := range map[string]string{
		"{a: {task: dev.add, schedule: 60}, b: {task: dev.add, schedule: often, deadline: never}}": "deadline: ",
		"{a: {task: dev.add, schedule: 60}, b: dev.add}":                                           "entry b is no map",
		"{a: {task: dev.add, schedule: 60}, b: {task: dev.add, schedule: {at: 2020-01-01}}}":       "at: ",
	} {
		if _, stderr := scheduleRun(t, 2, config, text, "add", "--file", "-"); !strings.Contains(stderr, want) {
			t.Errorf("%s: no %q in %s", text, want, stderr)
		}
	}
	const two = "{a: {task: dev.add, schedule: 60}, c: {task: dev.echo, schedule: 60}}"
	if _, stderr := scheduleRun(t, 1, config, two, "add", "--file", "-"); !strings.Contains(stderr, "there is an entry c already") {
		t.Errorf("a name that is taken: %s", stderr)
	}
	if _, stderr := scheduleRun(t, 2, config, two, "add", "--file", "-", "--replace", "--queue", "q", "--paused"); !strings.Contains(stderr, "--file excludes --queue, --paused") {
		t.Errorf("other flags: %s", stderr)
	}
	if text := entries(); text != before {
		t.Errorf("the file was changed:\n%s", text)
	}
	scheduleRun(t, 0, config, two, "add", "--file", "-", "--replace")
	if out, _ := scheduleRun(t, 0, config, "", "list", "-o", "name"); out != "a\nc\n" {
		t.Errorf("list says %q", out)
	}
}

// slowTyping is a standard input whose user takes longer than any store is waited for.
type slowTyping struct{ io.Reader }

func (s slowTyping) Read(p []byte) (int, error) {
	<-time.After(10 * operateTimeout)
	return s.Reader.Read(p)
}

// TestScheduleRemoveSlowly: who is asked whether to remove may take long to answer.
func TestScheduleRemoveSlowly(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, "")
	entries := writeEntries(t, folder, "slow: {task: dev.add, schedule: 60}\n")
	synctest.Test(t, func(t *testing.T) {
		var out, errs bytes.Buffer
		r := run{args: []string{"--config", config, "schedule", "remove", "slow"}, stdin: slowTyping{strings.NewReader("slow\n")}}
		if code := r.app(&out, &errs).run(t.Context(), r.args); code != 0 {
			t.Errorf("exit code %d: %s", code, &errs)
		}
	})
	if text := entries(); strings.Contains(text, "slow") {
		t.Errorf("the file holds %q", text)
	}
}

// TestScheduleWrong: what cannot be read, an entry or a whole file, is told beside the rest.
func TestScheduleWrong(t *testing.T) {
	t.Parallel()
	config, folder := scheduleFile(t, "beat_schedule:\n  hourly: {task: dev.add, schedule: 0 * * * *}\n")
	for text, want := range map[string]string{
		"bad: {task: dev.add, schedule: often}\n": "bad",
		"bad: {task: dev.add\n":                   "a file of entries cannot be read: " + filepath.Join(folder, "entries.yaml"),
	} {
		writeEntries(t, folder, text)
		for _, args := range [][]string{{"list"}, {"next"}} {
			if stdout, stderr := scheduleRun(t, 1, config, "", args...); !strings.Contains(stdout, "hourly") || !strings.Contains(stderr, want) {
				t.Errorf("%s: %q says %s%s", text, args, stdout, stderr)
			}
		}
		scheduleRun(t, 0, config, "", "next", "hourly")
	}
	writeEntries(t, folder, "{")
	if _, stderr := scheduleRun(t, 1, config, "", "show", "nightly"); !strings.Contains(stderr, "a file of entries cannot be read") {
		t.Errorf("an entry that may be in a broken file: %s", stderr)
	}
}

// TestScheduleAt: --at takes the zone of the entry's clock, which is that of the settings if it has none. It is shown there.
func TestScheduleAt(t *testing.T) {
	t.Parallel()
	config, _ := scheduleFile(t, "timezone: Europe/Berlin\n")
	for name, args := range map[string][]string{
		"once at 2100-01-01T12:00:00+01:00 Europe/Berlin":    {"2100-01-01T12:00"},
		"once at 2100-01-01T12:00:00-05:00 America/New_York": {"2100-01-01 12:00", "--timezone", "America/New_York"},
		"once at 2100-01-01T07:00:00-05:00 America/New_York": {"2100-01-01T12:00:00Z", "--timezone", "America/New_York"},
		"once at 2099-12-31T19:00:00-05:00 America/New_York": {"4102444800", "--timezone", "America/New_York"},
		"once at 2100-01-01T12:00:00Z":                       {"2100-01-01 12:00", "--timezone", "UTC"},
		"once at ":                                           {"+10m", "--timezone", "America/New_York"},
	} {
		scheduleRun(t, 0, config, "", append([]string{"add", "x", "--replace", "--task", "dev.add", "--at"}, args...)...)
		if out, _ := scheduleRun(t, 0, config, "", "list", "-o", "plain"); !strings.Contains(out, name) {
			t.Errorf("%q: no %q in %s", args, name, out)
		}
	}
	scheduleRun(t, 0, config, "", "add", "x", "--replace", "--task", "dev.add", "--at", "2100-01-01T12:00")
	if out, _ := scheduleRun(t, 0, config, "", "show", "x"); !strings.Contains(out, "2100-01-01T12:00:00.000000+01:00") ||
		!strings.Contains(out, "timezone: Europe/Berlin") {
		t.Errorf("show tells %s", out)
	}
}

// TestScheduleRedBeat adds an entry beside a beat that leads, which sends it, and runs it out of its turn.
func TestScheduleRedBeat(t *testing.T) {
	t.Parallel()
	broker := testservice.Redis(t)
	on := func(args ...string) []string { return append([]string{"-b", broker}, append(args, "-S", "redbeat")...) }
	b := run{args: on("beat", "-l", "INFO")}.start(t)
	b.output.waitFor(t, `beat: leading`)
	command(t, 0, on("schedule", "add", "often", "--task", "dev.add", "--every", "0.5", "--args", "[1, 2]", "--expires", "10m")...)
	b.output.waitFor(t, `Sending due task often \(dev.add\)`)
	command(t, 0, on("schedule", "pause", "often")...)
	if out := command(t, 0, on("schedule", "list", "-o", "plain")...); !strings.HasPrefix(out, "often\tdev.add\tevery 500ms\tpaused\t") {
		t.Errorf("list says %q", out)
	}
	id := strings.TrimSpace(command(t, 0, on("schedule", "run", "often")...))
	w := run{args: []string{"-b", broker, "worker", "--demo", "-l", "INFO"}}.start(t)
	w.output.waitFor(t, `Task dev.add\[`+id+`\] succeeded`)
	command(t, 0, on("schedule", "remove", "often", "--yes")...)
	if out := command(t, 0, on("schedule", "list", "-o", "json")...); out != "[]\n" {
		t.Errorf("list says %q", out)
	}
}

func TestAway(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for d, want := range map[time.Duration]string{0: "now", 400 * time.Millisecond: "now", time.Second: "in 1 second", 4 * time.Minute: "in 4 minutes",
		59*time.Second + 700*time.Millisecond: "in 1 minute", 2*time.Hour + 5*time.Minute + time.Second: "in 2 hours 5 minutes", -49 * time.Hour: "2 days 1 hour ago"} {
		if got := away(now.Add(d), now); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{time.Hour: "1h", 90 * time.Second: "1m30s", 10 * time.Minute: "10m", 24 * time.Hour: "24h", time.Second: "1s"} {
		if got := spanText(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
