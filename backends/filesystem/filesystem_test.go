package filesystem

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
	"github.com/gelery/gelery/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, dir string, o backends.Options) *Backend {
	t.Helper()
	b, err := backends.Open(t.Context(), "file://"+dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.(*Backend)
}

func TestContract(t *testing.T) {
	t.Parallel()
	backendstest.Run(t, func(t testing.TB) backendstest.Opener {
		dir := t.TempDir()
		return func(t testing.TB, o backends.Options) backends.Backend { return open(t, dir, o) }
	})
}

// A file is what Celery's filesystem backend would have written, under the same name.
func TestFileIsCelerys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, dir, backends.Options{TransportOptions: map[string]any{"global_keyprefix": "shop"}})
	err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: "a", Status: protocol.Success, Result: int64(3)}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "shop_celery-task-meta-a"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"status": "SUCCESS", "result": 3, "traceback": null, "children": [], "date_done": null, "task_id": "a"}`
	if string(data) != want {
		t.Errorf("stored %s", data)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, temporary+"*")); len(names) != 1 {
		t.Errorf("beside the lock there is %v", names)
	}
}

// No id from a message leads out of the folder.
func TestIDsThatAreNoNames(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, filepath.Join(dir), backends.Options{})
	for _, id := range []string{"../../a", "a/b", `a\b`, "a\x00", strings.Repeat("x", 240)} {
		var bad *backends.EncodeError
		err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: "good", Status: protocol.Success}, {TaskID: id, Status: protocol.Success}})
		if !errors.As(err, &bad) || bad.TaskID != id {
			t.Errorf("%.20q: stored with %v", id, err)
		}
		if m, err := b.Get(t.Context(), id); err != nil || m.Status != protocol.Pending {
			t.Errorf("%.20q: got %v, %v", id, m, err)
		}
		if err := b.Forget(t.Context(), id); err != nil {
			t.Errorf("%.20q: forgotten with %v", id, err)
		}
	}
	if m, err := b.Get(t.Context(), "good"); err != nil || m.Status != protocol.Pending {
		t.Errorf("of a batch that cannot be stored is there %v, %v", m, err)
	}
}

// Python empties a file and then writes it. Who reads in between waits for the rest.
func TestFileThatIsBeingWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, dir, backends.Options{})
	file := filepath.Join(dir, "celery-task-meta-a")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, half := range []string{"", `{"status": "SUCC`} {
		write(half)
		got := make(chan *protocol.ResultMeta, 1)
		go func() {
			m, err := b.Get(context.Background(), "a")
			if err != nil {
				t.Error(err)
			}
			got <- m
		}()
		write(`{"status": "SUCCESS", "result": 1, "task_id": "a"}`)
		if m := <-got; m == nil || m.Status != protocol.Success {
			t.Errorf("%q: got %v", half, m)
		}
	}
	write(`{"status": `)
	var bad *backends.DecodeError
	if _, err := b.Get(t.Context(), "a"); !errors.As(err, &bad) {
		t.Errorf("of what stays broken: %v", err)
	}
	for _, err := range b.Watch(t.Context(), "a") {
		if !errors.As(err, &bad) {
			t.Errorf("watching what stays broken: %v", err)
		}
	}
	// What is broken does not keep anybody from storing.
	if err := b.Store(t.Context(), []*protocol.ResultMeta{{TaskID: "a", Status: protocol.Success}}); err != nil {
		t.Error(err)
	}
}

// Backends of several processes store into one folder: check and write are one.
func TestSuccessStaysAmongWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var all sync.WaitGroup
	for range 4 {
		b := open(t, dir, backends.Options{})
		all.Go(func() {
			for i := range 50 {
				batch := []*protocol.ResultMeta{{TaskID: "a", Status: "PROGRESS", Result: int64(i)}}
				if i == 25 {
					batch = []*protocol.ResultMeta{{TaskID: "a", Status: protocol.Success}}
				}
				if err := b.Store(t.Context(), batch); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if m, err := open(t, dir, backends.Options{}).Get(t.Context(), "a"); err != nil || m.Status != protocol.Success {
		t.Errorf("in the end there is %v, %v", m, err)
	}
}

func TestLockIsWaitedForWithinTheContext(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other := newLock(filepath.Join(dir, temporary+"lock"))
	if err := other.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := open(t, dir, backends.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.Forget(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with the lock held by another: %v", err)
	}
	if err := other.give(); err != nil {
		t.Fatal(err)
	}
	if err := b.Forget(t.Context(), "a"); err != nil {
		t.Errorf("with the lock free again: %v", err)
	}
}

func TestCleanupLeavesWhatIsNotOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{"celery-task-meta-a", "celery-taskset-meta-g", temporary + "left", "notes.txt"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, old, old)); err != nil {
			t.Fatal(err)
		}
	}
	for want, expires := range map[int]time.Duration{4: -1, 1: time.Hour} {
		if err := open(t, dir, backends.Options{Expires: expires}).Cleanup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if names, _ := filepath.Glob(filepath.Join(dir, "*")); expires > 0 && (len(names) != want || filepath.Base(names[0]) != "notes.txt") {
			t.Errorf("%v is left", names)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url string
		o   backends.Options
	}{
		{url: "file://"},
		{url: "file://localhost/tmp"},
		{url: "file://" + t.TempDir() + "/missing"},
		{url: "file://" + t.TempDir(), o: backends.Options{Serializer: "xml"}},
		{url: "file://" + t.TempDir(), o: backends.Options{TransportOptions: map[string]any{"visibility_timeout": 1}}},
		{url: "file://" + t.TempDir(), o: backends.Options{TransportOptions: map[string]any{"global_keyprefix": "../"}}},
	} {
		if b, err := backends.Open(t.Context(), tt.url, tt.o); err == nil {
			_ = b.Close()
			t.Errorf("%s %v is taken", tt.url, tt.o)
		}
	}
}
