package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestStateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	e := entry(t, "e", `{task: a, schedule: 60}`)
	store := local(t, LocalConfig{StateFile: path, Entries: []*Entry{e}})
	lease, err := store.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run, err := e.run(time.Unix(1e9, 0), time.Unix(1e9, 0), 7)
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.Mark(t.Context(), []Mark{{Entry: e, State: State{time.Unix(1e9, 0), 7}, Runs: []Run{run}}}); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	_ = lease.Release(t.Context())

	reread := func(data []byte) (Record, []Run) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		store := local(t, LocalConfig{StateFile: path, Entries: []*Entry{e}})
		lease, err := store.Lead(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lease.Release(t.Context()) }()
		r, err := store.Entry(t.Context(), "e")
		if err != nil {
			t.Fatal(err)
		}
		left, _ := lease.Pending(t.Context())
		return r, left
	}
	r, left := reread(data)
	if r.State.TotalRunCount != 7 || !r.State.LastRunAt.Equal(time.Unix(1e9, 0)) || len(left) != 1 || left[0].ID != run.ID || left[0].Task.String() != run.Task.String() {
		t.Errorf("read again: %+v, %v", r.State, left)
	}
	if _, left = reread(data[:len(data)-5]); len(left) != 0 { // the last line is torn
		t.Errorf("a torn line was read: %v", left)
	}
	r, left = reread(slices.Concat(data[:40], []byte("{\"x"), data[43:]))
	aside, _ := filepath.Glob(path + ".corrupt-*")
	if len(aside) != 1 || len(left) != 1 {
		t.Errorf("a corrupt line: set aside %v, state %+v, runs %v", aside, r.State, left)
	}
	if kept, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(kept, data[:20]) {
		t.Errorf("in place of the corrupt file: %q, %v", kept, err)
	}
	for i, foreign := range [][]byte{ // what a power loss leaves, and what is another's
		append(make([]byte, 4096), data[20:]...), data[:10], []byte("broker_url: redis://"), []byte("[beat]\nx = 1\n"), {0},
	} {
		reread(foreign)
		aside, _ := filepath.Glob(path + ".corrupt-*")
		if len(aside) != i+2 {
			t.Fatalf("%.20q: set aside %v", foreign, aside)
		}
		if kept, _ := os.ReadFile(aside[i+1]); !bytes.Equal(kept, foreign) {
			t.Errorf("%.20q is kept as %.20q", foreign, kept)
		}
	}
	if err := os.WriteFile(path, []byte("\x00\x06\x15\x61shelve"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewLocal(LocalConfig{StateFile: path}); err == nil {
		t.Error("a shelve is taken for a state file")
	}
}

// The second beat of a state file waits for the first.
func TestStateFileHasOneLeader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	first, second := local(t, LocalConfig{StateFile: path}), local(t, LocalConfig{StateFile: path})
	lease, err := first.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := second.Lead(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("two lead: %v", err)
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lease, err = second.Lead(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = lease.Release(t.Context())
}

// Files are read again when they change; a mistake in one leaves the others, and the entry itself as it was.
func TestWatchedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "schedule.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# ours\na: {task: a, schedule: 5}\nb: {task: b, schedule: 5}\n")
	store := local(t, LocalConfig{Files: []string{path}})
	lease, err := store.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lease.Release(t.Context()) }()
	now := time.Now()
	names := func() (all []string) {
		t.Helper()
		now = now.Add(time.Minute)
		due, _, err := lease.Due(t.Context(), now, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range due {
			all = append(all, fmt.Sprint(r.Entry.Name, r.Entry.Schedule))
		}
		slices.Sort(all)
		return all
	}
	want := func(all ...string) {
		t.Helper()
		if got := names(); !slices.Equal(got, all) {
			t.Errorf("due: %v, want %v", got, all)
		}
	}
	want("a<freq: 5s>", "b<freq: 5s>")
	write("a: {task: a, schedule: 7}\nb: {task: b, schedule: soon}\nc: {task: c, schedule: 5}\n")
	names() // what is new is due after its next moment
	want("a<freq: 7s>", "b<freq: 5s>", "c<freq: 5s>")
	write("a: [")
	want("a<freq: 7s>", "b<freq: 5s>", "c<freq: 5s>")
	write("# ours\na: {task: a, schedule: 7} # seven\n")
	want("a<freq: 7s>")

	ctx := t.Context()
	if err := store.Put(ctx, entry(t, "new", `{task: n, schedule: "0 4 * * *", options: {queue: q}}`)); err != nil {
		t.Fatal(err)
	}
	if err := store.Pause(ctx, "new", true); err != nil {
		t.Fatal(err)
	}
	if r, err := store.Entry(ctx, "new"); err != nil || !r.Entry.Paused || r.Source != path || r.Fixed {
		t.Errorf("%+v, %v", r, err)
	}
	text, _ := os.ReadFile(path)
	if got := string(text); got != "# ours\na: {task: a, schedule: 7} # seven\nnew:\n  options:\n    queue: \"q\"\n  schedule:\n    crontab:\n      day_of_month: \"*\"\n      day_of_week: \"*\"\n      hour: \"4\"\n      minute: \"0\"\n      month_of_year: \"*\"\n  task: \"n\"\n  timezone: \"UTC\"\n  enabled: false\n" {
		t.Errorf("the file:\n%s", got)
	}
	for _, err := range []error{store.Remove(ctx, "none"), store.Pause(ctx, "none", true)} {
		if !errors.Is(err, ErrNoEntry) {
			t.Errorf("what is not there: %v", err)
		}
	}
	if err := store.Remove(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Entry(ctx, "a"); !errors.Is(err, ErrNoEntry) {
		t.Errorf("removed: %v", err)
	}
}

// An entry that comes with an old file counts from when the file was looked at, not from the file's own time.
func TestOldFileMovedIn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "schedule.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "a: {task: a, schedule: 5}\n")
	store := local(t, LocalConfig{Files: []string{path}})
	lease, err := store.Lead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lease.Release(t.Context()) }()
	now := time.Now().Add(2 * time.Second)
	if _, _, err := lease.Due(t.Context(), now, 10); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "old")
	write(old, "new: {task: a, schedule: 3600}\n")
	if err := os.Chtimes(old, now, now.Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(old, path); err != nil {
		t.Fatal(err)
	}
	if due, next, err := lease.Due(t.Context(), now.Add(5*time.Second), 10); err != nil || len(due) != 0 || !next.Equal(now.Add(time.Hour)) {
		t.Errorf("due %v, next at %v, %v; want %v", due, next, err, now.Add(time.Hour))
	}
}

// What was missed in a pause is not sent, also when no beat runs at its end.
func TestResumedWithoutBeat(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		phase := func(definition string) []string {
			t.Helper()
			l := &ledger{}
			beating(t, 61*time.Second, local(t, LocalConfig{StateFile: path, Entries: []*Entry{entry(t, "e", definition)}}), l, nil)
			return l.moments(t, "e")
		}
		const on, off = `{task: a, schedule: "* * * * *"}`, `{task: a, schedule: "* * * * *", enabled: false}`
		for i, step := range []struct {
			definition string
			want       []string
		}{
			{on, []string{"01 00:01:00"}}, {off, nil}, {off, nil},
			{on, []string{"01 01:34:00"}}, // not 01:33:00, which the pause had
			{on, []string{"01 02:04:00", "01 02:05:00"}},
		} {
			if got := phase(step.definition); !slices.Equal(got, step.want) {
				t.Errorf("phase %d: %v, want %v", i, got, step.want)
			}
			time.Sleep(30 * time.Minute) //nolint:forbidigo // the bubble's clock
		}
	})
}

// Of two who change a file at the same time each keeps what the other has written.
func TestEditedAtOnce(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"schedule.yaml", "schedule.json"} {
		path := filepath.Join(t.TempDir(), name)
		var edits sync.WaitGroup
		for i := range 4 {
			store := local(t, LocalConfig{Files: []string{path}})
			e := entry(t, fmt.Sprint("e", i), `{task: a, schedule: 5}`)
			edits.Go(func() {
				if err := store.Put(t.Context(), e); err != nil {
					t.Error(err)
				}
			})
		}
		edits.Wait()
		if entries, wrong, err := NewFile(path, nil).Read(); len(entries) != 4 || len(wrong) > 0 || err != nil {
			t.Errorf("%s: %d of 4 entries, %v, %v", name, len(entries), wrong, err)
		}
	}
}

// A pause leaves an entry's definition as it is written.
func TestPauseKeepsWhatIsWritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "schedule.yaml")
	const written = "# ours\na:\n  task: a\n  schedule: \"30 2 * * *\" # at night\nb: {task: b, schedule: 5} # five\nnew: {task: n, schedule: 5}\n"
	if err := os.WriteFile(path, []byte(written), 0o600); err != nil {
		t.Fatal(err)
	}
	store := local(t, LocalConfig{Files: []string{path}})
	for _, name := range []string{"a", "b"} {
		if err := store.Pause(t.Context(), name, true); err != nil {
			t.Fatal(err)
		}
	}
	text, _ := os.ReadFile(path)
	if got, want := string(text), strings.NewReplacer("night\n", "night\n  enabled: false\n", "schedule: 5} # five", "schedule: 5, enabled: false} # five").Replace(written); got != want {
		t.Errorf("after two pauses:\n%s\nwant\n%s", got, want)
	}
}
