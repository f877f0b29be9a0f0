package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// holding adds the task "hold", which tells that it has begun and ends with its context, or when the site is released.
func (s *site) holding() (began chan context.Context, release chan struct{}) {
	began, release = make(chan context.Context, 100), make(chan struct{})
	s.mux.Func("hold", func(ctx context.Context) error {
		began <- ctx
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-release:
			return nil
		}
	})
	return began, release
}

// limiting adds the task "limited", of which one may run in a minute; exhaust runs that one, and all others wait in a room.
func (s *site) limiting() (exhaust func()) {
	s.mux.Func("limited", func(context.Context) error { return nil }, task.RateLimit("1/m"))
	return func() {
		s.Helper()
		if _, err := s.send("limited").Get(s.context()); err != nil {
			s.Fatal(err)
		}
	}
}

// wantRevoked waits for a task to end as revoked, for that reason.
func (s *site) wantRevoked(r *task.Result[any], why string) {
	s.Helper()
	e := s.failure(r)
	if !errors.Is(e, task.ErrRevoked) || e.State != protocol.Revoked || e.Module != "celery.exceptions" || e.Message != why {
		s.Errorf("the task ended as %s with %v; expected REVOKED with %q", e.State, e, why)
	}
}

func (s *site) sendWith(name string, opts ...task.SendOption) *task.Result[any] {
	s.Helper()
	r, err := s.client.Send(s.context(), name, nil, nil, opts...)
	if err != nil {
		s.Fatal(err)
	}
	return r
}

// knows returns when the worker knows that an id is revoked.
func (s *site) knows(id string) {
	s.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if _, yes := s.worker.revoked.holds(&protocol.Request{Headers: protocol.Headers{ID: id}}); yes {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			s.Fatalf("the worker does not know after 30 s that %s is revoked", id)
		}
	}
}

func TestRevokeOfWhatWaits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, release := s.holding()
	exhaust := s.limiting()
	s.start(Config{Concurrency: 1})
	exhaust()
	running, queued := s.send("hold"), s.send("hold")
	await(t, began, "the first task")
	parked := s.send("limited")
	s.reaches(0, 3)
	for _, r := range []*task.Result[any]{running, queued, parked} {
		if err := r.Revoke(s.context()); err != nil {
			t.Fatal(err)
		}
	}
	s.wantRevoked(parked, "revoked") // at once, and while the other holds the only slot
	s.knows(queued.ID())
	close(release)
	s.wantRevoked(queued, "revoked")
	if _, err := running.Get(s.context()); err != nil {
		t.Errorf("the running task, which nobody has terminated: %v", err)
	}
	if len(began) > 0 {
		t.Error("a revoked task has begun")
	}
	s.settled()
}

func TestRevokeThatTerminates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, _ := s.holding()
	s.start(Config{Concurrency: 2})
	r := s.send("hold")
	ctx := await(t, began, "the task")
	if err := s.client.Revoke(s.context(), []string{r.ID(), "of nobody"}, task.Terminate("SIGKILL")); err != nil {
		t.Fatal(err)
	}
	s.wantRevoked(r, "terminated")
	await(t, ctx.Done(), "the end of the task's context")
	if cause := context.Cause(ctx); !errors.Is(cause, task.ErrRevoked) {
		t.Errorf("the context's cause is %v", cause)
	}
	s.settled()
}

func TestRevokeByStampedHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, _ := s.holding()
	exhaust := s.limiting()
	s.start(Config{Concurrency: 2})
	exhaust()
	of := func(name string, tenant any) *task.Result[any] { return s.sendWith(name, task.Stamp("tenant", tenant)) }
	running := of("hold", []string{"a", "b"})
	await(t, began, "the task")
	parked, other := of("limited", "b"), of("limited", "c")
	s.reaches(0, 3)
	if err := s.client.RevokeByStampedHeaders(s.context(), map[string][]string{"tenant": {"b", "x"}}, task.Terminate("")); err != nil {
		t.Fatal(err)
	}
	s.wantRevoked(running, "terminated")
	s.wantRevoked(parked, "revoked")
	s.wantRevoked(of("hold", "b"), "revoked")
	if state, err := other.State(s.context()); state != protocol.Pending || err != nil {
		t.Errorf("another stamp's task is %s, %v", state, err)
	}
}

// A worker that begins later knows what was revoked before, by the broker.
func TestRevokedBeforeTheWorkerBegan(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.holding()
	r := s.send("hold")
	stamped := s.sendWith("hold", task.Stamp("tenant", "a"))
	if err := errors.Join(r.Revoke(s.context()),
		s.client.RevokeByStampedHeaders(s.context(), map[string][]string{"tenant": {"a"}})); err != nil {
		t.Fatal(err)
	}
	s.start(Config{Concurrency: 1})
	s.wantRevoked(r, "revoked")
	s.wantRevoked(stamped, "revoked")
	s.settled()
}

// What Python says by remote control alone is remembered for the others; a worker that hears nothing reads it.
func TestRevokedIsShared(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{Concurrency: 1})
	s.worker.revoked.heard(transport.RevokedSet, "told")
	keeper := s.client.Transport().(transport.Keeper)
	deadline := time.After(30 * time.Second)
	for {
		found, err := keeper.Recall(s.context(), transport.RevokedSet, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) == 1 && found[0].Member == "told" {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("the broker remembers %v", found)
		}
	}
	deaf := &Worker{client: s.client, log: s.worker.log, config: s.worker.config}
	deaf.revoked = newRevoked(deaf)
	since := deaf.revoked.recall(s.context(), keeper, time.Time{})
	if _, yes := deaf.revoked.holds(&protocol.Request{Headers: protocol.Headers{ID: "told"}}); !yes || since.IsZero() {
		t.Error("a worker that asks the broker is not told")
	}
	if len(deaf.revoked.unkept) != 0 {
		t.Error("what the broker remembers is told to it again")
	}
}

func TestStateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "worker.state")
	s := newSite(t)
	s.start(Config{StateFile: path})
	s.worker.revoked.heard(transport.RevokedSet, "a", "b")
	s.worker.revoked.heard(transport.RevokedStampsSet, `tenant="x"`)
	s.worker.clock.Store(15)
	if err := s.end(); err != nil {
		t.Fatal(err)
	}
	var said map[string]any
	if b, err := os.ReadFile(path); err != nil || json.Unmarshal(b, &said) != nil || said["version"] != 1.0 {
		t.Fatalf("the file says %s, %v", b, err)
	}
	clock, _ := said["clock"].(float64)
	if clock < 15 { // the events of the stop may have moved it on
		t.Errorf("the file says %v", said)
	}
	w, err := New(newSite(t).client, NewMux(), Config{StateFile: path})
	if err != nil {
		t.Fatal(err)
	}
	ids := w.revoked.ids.all()
	if len(ids) != 2 || ids["a"].IsZero() || w.revoked.stamps.len() != 1 || w.clock.Load() != int64(clock) {
		t.Errorf("a new worker knows %v and %v", ids, w.revoked.stamps.all())
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); err != nil || len(left) != 1 {
		t.Errorf("the folder has %q, %v", left, err)
	}
}

func TestStateFileThatIsNone(t *testing.T) {
	t.Parallel()
	client := newSite(t).client
	for name, tt := range map[string]struct {
		content string
		refused string
	}{
		"empty":       {content: ""},
		"cut off":     {content: `{"version":1,"clock":1,"revo`},
		"later":       {content: `{"version":9}`},
		"a time":      {content: `{"version":1,"revoked":{"a":"yesterday"}}`},
		"gdbm":        {"\xce\x9a\x57\x13\x00\x10\x00\x00", "shelve"},
		"Berkeley DB": {strings.Repeat("\x00", 12) + "\x61\x15\x06\x00" + strings.Repeat("\x00", 100), "shelve"},
		"SQLite":      {"SQLite format 3\x00....", "shelve"},
		"dumb":        {"'__proto__', (0, 5)\n", "shelve"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := New(client, NewMux(), Config{StateFile: path})
			aside, _ := filepath.Glob(path + ".corrupt-*")
			if tt.refused != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refused) || !strings.Contains(err.Error(), "StateFile") || len(aside) != 0 {
					t.Errorf("got %v, and %q", err, aside)
				}
				return
			}
			if err != nil || len(aside) != 1 {
				t.Fatalf("got %v, and %q set aside", err, aside)
			}
			if b, err := os.ReadFile(aside[0]); string(b) != tt.content || err != nil {
				t.Errorf("set aside is %q, %v", b, err)
			}
		})
	}
	if _, err := New(client, NewMux(), Config{StateFile: filepath.Join(t.TempDir(), "no", "such", "folder")}); err == nil {
		t.Error("a place where nothing can be written was taken")
	}
}

func TestRevokeBounds(t *testing.T) {
	for _, tt := range []struct{ name, max, expires, want string }{
		{"number", "many", "", "CELERY_WORKER_REVOKES_MAX"}, {"zero", "0", "", "CELERY_WORKER_REVOKES_MAX"},
		{"seconds", "", "-1", "CELERY_WORKER_REVOKE_EXPIRES"}, {"infinite", "", "Inf", "CELERY_WORKER_REVOKE_EXPIRES"},
		{"both", "7", "0.5", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("CELERY_WORKER_REVOKES_MAX", tt.max)
			t.Setenv("CELERY_WORKER_REVOKE_EXPIRES", tt.expires)
			w, err := New(newSite(t).client, NewMux(), Config{})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil || w.config.RevokesMax != 7 || w.config.RevokeExpires != time.Second/2 {
				t.Errorf("got %v, %v", w.config, err)
			}
		})
	}
}

func TestStampValues(t *testing.T) {
	t.Parallel()
	r := &protocol.Request{Headers: protocol.Headers{StampedHeaders: []string{"a", "b", "c", "gone"},
		Stamps: map[string]json.RawMessage{"a": json.RawMessage(`["x", 1]`), "b": json.RawMessage(`"é"`), "c": json.RawMessage(`{broken`),
			"unlisted": json.RawMessage(`"y"`)}}}
	var got []string
	for m := range stampMembers(r) {
		got = append(got, m)
	}
	slices.Sort(got)
	if want := []string{`a="x"`, `a=1`, `b="é"`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestRevokedForLong: what was revoked days ago does not run when it is due.
func TestRevokedForLong(t *testing.T) {
	w, err := New(newSite(t).client, NewMux(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	w.revoked.add(transport.RevokedSet, []revocation{{"far", time.Now().Add(-6 * day)}, {"gone", time.Now().Add(-8 * day)}}, true)
	for id, want := range map[string]bool{"far": true, "gone": false} {
		if _, yes := w.revoked.holds(&protocol.Request{Headers: protocol.Headers{ID: id}}); yes != want {
			t.Errorf("%s is revoked: %v", id, yes)
		}
	}
}

// failingKeeper remembers nothing as long as it fails.
type failingKeeper struct {
	transport.Keeper
	fails bool
	told  []string
}

func (k *failingKeeper) Remember(_ context.Context, _ string, members []string, _ transport.KeeperBounds) error {
	if k.fails {
		return transport.ErrBrokerFull
	}
	k.told = append(k.told, members...)
	return nil
}

// What the broker did not remember is told to it again, within the bound.
func TestRevokedIsToldAgain(t *testing.T) {
	t.Parallel()
	w := &Worker{log: slog.New(slog.DiscardHandler), config: Config{RevokesMax: 3, RevokeExpires: time.Hour}}
	w.revoked = newRevoked(w)
	k := &failingKeeper{fails: true}
	w.revoked.heard(transport.RevokedSet, "a", "b")
	w.revoked.remember(t.Context(), k)
	w.revoked.heard(transport.RevokedSet, "c", "d")
	w.revoked.remember(t.Context(), k)
	k.fails = false
	w.revoked.remember(t.Context(), k)
	w.revoked.remember(t.Context(), k)
	if got := strings.Join(k.told, " "); got != "b c d" {
		t.Errorf("the broker was told %q; want b c d, once", got)
	}
}

// TestRevokeNames: many ids take no long time, and what cannot be kept is not said to be revoked.
func TestRevokeNames(t *testing.T) {
	t.Parallel()
	w := &Worker{log: slog.New(slog.DiscardHandler), config: Config{RevokesMax: 100_000, RevokeExpires: time.Hour}}
	w.revoked = newRevoked(w)
	ids := []any{"a", "a", strings.Repeat("x", longestRevoked+1)}
	answer, err := revokeCommand(t.Context(), w, arguments{"revoke", map[string]any{"task_id": ids}})
	if got := fmt.Sprint(answer); err != nil || got != "map[ok:tasks {'a'} flagged as revoked; 1 not, since they have not from 1 to 1024 bytes]" {
		t.Errorf("answered %s, %v", got, err)
	}
	ids = make([]any, 40_000)
	for i := range ids {
		ids[i] = protocol.NewID()
	}
	began := time.Now()
	if _, err := (arguments{"revoke", map[string]any{"task_id": ids}}).names("task_id"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("40,000 ids took %v", took)
	}
}

func TestLoggedIDs(t *testing.T) {
	t.Parallel()
	ids := slices.Repeat([]string{"a"}, maxLoggedIDs+2)
	hundred := strings.Repeat("a, ", maxLoggedIDs-1) + "a"
	for n, want := range map[int]string{0: "", 2: "a, a", maxLoggedIDs: hundred, maxLoggedIDs + 2: hundred + " and 2 more"} {
		if got := logged(ids[:n]); got != want {
			t.Errorf("%d ids are logged as %q", n, got)
		}
	}
}
