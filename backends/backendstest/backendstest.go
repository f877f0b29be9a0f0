// Package backendstest is the contract of backends.Backend as tests. Every driver passes them.
package backendstest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// Opener opens one more backend on a store, as another process would, and closes it when the test ends.
type Opener func(t testing.TB, o backends.Options) backends.Backend

type test struct {
	name string
	test func(t *testing.T, open Opener)
}

// common is what holds for every backend.
var common = []test{
	{"StoreAndGet", testStoreAndGet},
	{"GetMany", testGetMany},
	{"Serializers", testSerializers},
	{"SuccessStays", testSuccessStays},
	{"OrderWithinBatch", testOrderWithinBatch},
	{"EncodeErrorWritesNothing", testEncodeErrorWritesNothing},
	{"Forget", testForget},
	{"BigValues", testBigValues},
	{"LargeBatch", testLargeBatch},
	{"WatchBeforeStore", testWatchBeforeStore},
	{"WatchAfterStore", testWatchAfterStore},
	{"WatchForgotten", testWatchForgotten},
	{"WatchMany", testWatchMany},
	{"WatchSameTwice", testWatchSameTwice},
	{"WatchNothing", testWatchNothing},
	{"WatchCancelled", testWatchCancelled},
	{"WatchBreak", testWatchBreak},
	{"WatchAndClose", testWatchAndClose},
	{"SlowWatcherGetsFinalState", testSlowWatcher},
	{"Concurrent", testConcurrent},
	{"Close", testClose},
}

// ofStores is what holds for backends that store, and not for a backends.Replier.
var ofStores = []test{
	{"FailureIsOverwritten", testOverwriting}, // the client does not take back a final state it has told of
	{"UnknownIsWatched", testWatchUnknown},    // what nobody expects never comes
}

// children holds for all but tables, which have no place for them.
var children = test{"Children", testChildren}

// Run runs the contract, that of the interfaces that the backend has beside Backend included. NewStore makes an empty
// store for one test.
func Run(t *testing.T, newStore func(t testing.TB) Opener) {
	// A reply has five of the members of a document only.
	runStore(t, []test{children, {"WholeDocument", testWholeDocument}}, newStore)
}

// RunTable is Run for backends that share a table with Celery in which children, group, parent and stamps have no place.
func RunTable(t *testing.T, newStore func(t testing.TB) Opener) { runStore(t, nil, newStore) }

func runStore(t *testing.T, tests []test, newStore func(t testing.TB) Opener) {
	tests = slices.Concat(common, ofStores, tests)
	b := newStore(t)(t, backends.Options{})
	if _, ok := b.(backends.Cleaner); ok {
		tests = append(tests, test{"Cleanup", testCleanup})
	} else {
		tests = append(tests, test{"ExpiresByWriter", testExpires})
	}
	if _, ok := b.(backends.GroupKeeper); ok {
		tests = append(tests, test{"Groups", testGroups})
	}
	if _, ok := b.(backends.ChordCounter); ok {
		tests = append(tests, ofChordCounters...)
	}
	if _, ok := b.(backends.Claimer); ok {
		tests = append(tests, ofClaimers...)
	}
	run(t, tests, newStore)
}

// RunReplier runs the contract for backends that are a backends.Replier. NewStore makes a broker for one test; the backends
// opened on it send what is stored to each other.
func RunReplier(t *testing.T, newStore func(t testing.TB) Opener) {
	run(t, append(slices.Clone(common), children), func(t testing.TB) Opener { return replying(newStore(t)) })
}

func run(t *testing.T, tests []test, newStore func(t testing.TB) Opener) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, newStore(t))
		})
	}
}

// wait is how long anything in here may take.
const wait = 60 * time.Second

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	t.Cleanup(cancel)
	return ctx
}

func success(id string, result any) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: id, Status: protocol.Success, Result: result,
		DateDone: time.Date(2026, 11, 22, 10, 10, 48, 555758000, time.UTC)}
}

func failure(id string) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: id, Status: protocol.Failure, Traceback: "at line 1",
		Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"bad", int64(42)}},
		DateDone:  time.Date(2026, 11, 22, 10, 10, 48, 0, time.UTC)}
}

func state(id string, s protocol.State) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: id, Status: s, Result: map[string]any{"pid": int64(7)}}
}

func mustStore(t *testing.T, b backends.Backend, batch ...*protocol.ResultMeta) {
	t.Helper()
	if err := b.Store(deadline(t), batch); err != nil {
		t.Fatal(err)
	}
}

func mustGet(t *testing.T, b backends.Backend, id string) *protocol.ResultMeta {
	t.Helper()
	m, err := b.Get(deadline(t), id)
	if err != nil {
		t.Fatal(err)
	}
	if m.TaskID != id {
		t.Errorf("meta of %q names %q", id, m.TaskID)
	}
	return m
}

func wantState(t *testing.T, b backends.Backend, id string, want protocol.State) {
	t.Helper()
	if got := mustGet(t, b, id).Status; got != want {
		t.Errorf("state of %s is %s, want %s", id, got, want)
	}
}

func testStoreAndGet(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	if d := cmp.Diff(&protocol.ResultMeta{TaskID: "none", Status: protocol.Pending}, mustGet(t, client, "none")); d != "" {
		t.Errorf("unknown task: %s", d)
	}
	rich := success("rich", map[string]any{"n": int64(1), "list": []any{1.5, "x", nil, true}})
	retry := failure("retry")
	retry.Status = protocol.Retry
	revoked := failure("revoked")
	revoked.Status = protocol.Revoked
	for _, m := range []*protocol.ResultMeta{success("plain", int64(3)), success("null", nil), rich, failure("fail"), retry, revoked,
		state("started", protocol.Started), state("custom", "PROGRESS")} {
		m.DateDone = time.Time{}
		mustStore(t, worker, m)
		if d := cmp.Diff(m, mustGet(t, client, m.TaskID)); d != "" {
			t.Errorf("%s: %s", m.TaskID, d)
		}
	}
}

func testChildren(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	m := success("rich", int64(1))
	m.DateDone = time.Time{}
	m.Children = []protocol.ResultTuple{{ID: "child", Parent: &protocol.ResultTuple{ID: "rich"}}}
	mustStore(t, worker, m)
	if d := cmp.Diff(m, mustGet(t, client, "rich")); d != "" {
		t.Error(d)
	}
}

func testGetMany(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	var ids []string
	var batch, want []*protocol.ResultMeta
	for i := range 1200 {
		m := &protocol.ResultMeta{TaskID: fmt.Sprint("t", i), Status: protocol.Pending}
		if i%3 > 0 {
			m = success(m.TaskID, int64(i))
			batch = append(batch, m)
		}
		ids, want = append(ids, m.TaskID), append(want, m)
	}
	mustStore(t, worker, batch...)
	ids, want = append(ids, "t1", "t0"), append(want, want[1], want[0]) // once more
	got, err := client.GetMany(deadline(t), ids...)
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %d metas of %d: %v", len(got), len(want), err)
	}
	for i, m := range got {
		if m.TaskID != want[i].TaskID || m.Status != want[i].Status || m.Result != want[i].Result {
			t.Errorf("place %d has %s %s %v, want %s %s %v", i, m.TaskID, m.Status, m.Result, want[i].TaskID, want[i].Status, want[i].Result)
		}
	}
	if got, err := client.GetMany(deadline(t)); len(got) != 0 || err != nil {
		t.Errorf("of no task: %v, %v", got, err)
	}
}

func testWholeDocument(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	full := success("full", int64(1))
	full.GroupID, full.ParentID = "g", "p"
	full.Extended = &protocol.ExtendedMeta{Name: "tasks.add", Args: []any{int64(1)}, Kwargs: map[string]any{"k": "v"},
		Worker: "celery@vm", Retries: 2, Queue: "celery", StampedHeaders: []string{"st"}, Stamps: map[string]any{"st": "v"}}
	for _, m := range []*protocol.ResultMeta{success("plain", int64(3)), failure("fail"), full} {
		mustStore(t, worker, m)
		if d := cmp.Diff(m, mustGet(t, client, m.TaskID)); d != "" {
			t.Errorf("%s: %s", m.TaskID, d)
		}
	}
}

func testSerializers(t *testing.T, open Opener) {
	for _, name := range []string{"json", "msgpack", "yaml"} {
		b := open(t, backends.Options{Serializer: name})
		id := "of-" + name
		mustStore(t, b, state(id, protocol.Started))
		mustStore(t, b, success(id, "kept"))
		mustStore(t, b, failure(id))
		if m := mustGet(t, b, id); m.Status != protocol.Success || m.Result != "kept" {
			t.Errorf("%s: got %s %v", name, m.Status, m.Result)
		}
		// A text that only looks like a success must not count as one.
		mustStore(t, b, &protocol.ResultMeta{TaskID: id + "2", Status: "PROGRESS", Result: "x\nstatus: SUCCESS\n\"status\": \"SUCCESS\""})
		mustStore(t, b, failure(id+"2"))
		wantState(t, b, id+"2", protocol.Failure)
	}
}

func testSuccessStays(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	mustStore(t, b, success("a", int64(1)))
	for _, later := range []*protocol.ResultMeta{state("a", protocol.Started), failure("a"), success("a", int64(2))} {
		mustStore(t, b, later)
		if m := mustGet(t, b, "a"); m.Status != protocol.Success || m.Result != int64(1) {
			t.Errorf("after a later %s: %s %v", later.Status, m.Status, m.Result)
		}
	}
	// Anything else is overwritten.
	for _, s := range []protocol.State{protocol.Started, protocol.Retry, "PROGRESS"} {
		mustStore(t, b, &protocol.ResultMeta{TaskID: "b", Status: s})
		wantState(t, b, "b", s)
	}
	mustStore(t, b, failure("b"))
	mustStore(t, b, success("b", nil))
	wantState(t, b, "b", protocol.Success)
}

func testOverwriting(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	mustStore(t, b, failure("a"))
	mustStore(t, b, state("a", protocol.Started))
	wantState(t, b, "a", protocol.Started)
}

func testOrderWithinBatch(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	mustStore(t, b, state("a", protocol.Started), success("b", int64(1)), state("a", "PROGRESS"), failure("b"), failure("a"))
	wantState(t, b, "a", protocol.Failure)
	wantState(t, b, "b", protocol.Success)
	mustStore(t, b) // an empty batch is nothing
}

func testEncodeErrorWritesNothing(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	err := b.Store(deadline(t), []*protocol.ResultMeta{success("good", int64(1)), success("bad", func() {}), success("good2", nil)})
	var encodeErr *backends.EncodeError
	if !errors.As(err, &encodeErr) || encodeErr.TaskID != "bad" {
		t.Fatalf("got %v, want an EncodeError of task bad", err)
	}
	for _, id := range []string{"good", "bad", "good2"} {
		wantState(t, b, id, protocol.Pending)
	}
}

func testForget(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	var ids []string
	var batch []*protocol.ResultMeta
	for i := range 1200 {
		ids = append(ids, fmt.Sprint(i))
		batch = append(batch, success(ids[i], nil))
	}
	mustStore(t, b, batch...)
	if err := b.Forget(deadline(t), ids[1:]...); err != nil {
		t.Fatal(err)
	}
	wantState(t, b, "0", protocol.Success)
	for _, id := range []string{"1", "500", "501", "1000", "1001", "1199"} {
		wantState(t, b, id, protocol.Pending)
	}
	if err := b.Forget(deadline(t), "1", "never"); err != nil {
		t.Errorf("forgetting what is not there: %v", err)
	}
	mustStore(t, b, failure("1")) // no success stands in the way now
	wantState(t, b, "1", protocol.Failure)
}

func testExpires(t *testing.T, open Opener) {
	brief := open(t, backends.Options{Expires: time.Second})
	forever := open(t, backends.Options{Expires: -1})
	usual := open(t, backends.Options{})
	mustStore(t, brief, success("brief", nil))
	mustStore(t, forever, success("forever", nil))
	mustStore(t, usual, success("usual", nil))
	wantState(t, brief, "brief", protocol.Success)
	ctx := deadline(t)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for mustGet(t, usual, "brief").Status != protocol.Pending {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("does not expire")
		}
	}
	wantState(t, usual, "forever", protocol.Success)
	wantState(t, usual, "usual", protocol.Success)
	mustStore(t, usual, failure("brief")) // an expired success does not stay
	wantState(t, usual, "brief", protocol.Failure)
}

func testBigValues(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	w := watch(deadline(t), b, "big0", "big1", "big2")
	for range 3 {
		if s := w.next(t); s != protocol.Pending {
			t.Fatal(s)
		}
	}
	text := strings.Repeat("ü\"\n0123456789", 100_000) // 1.6 MB each: more than one round trip
	mustStore(t, b, success("big0", text), success("big1", text), success("big2", text))
	for i := range 3 {
		if s := w.next(t); s != protocol.Success {
			t.Fatal(s, w.err)
		}
		if m := mustGet(t, b, fmt.Sprint("big", i)); m.Result != text {
			t.Errorf("big value came back changed")
		}
	}
}

func testLargeBatch(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	var batch []*protocol.ResultMeta
	for i := range 1000 {
		batch = append(batch, success(fmt.Sprint("t", i), int64(i)))
	}
	mustStore(t, b, batch...)
	for _, i := range []int{0, 255, 256, 257, 511, 512, 999} {
		if m := mustGet(t, b, fmt.Sprint("t", i)); m.Result != int64(i) {
			t.Errorf("task %d has %v", i, m.Result)
		}
	}
}

func testConcurrent(t *testing.T, open Opener) {
	worker, client := open(t, backends.Options{}), open(t, backends.Options{})
	ctx := deadline(t)
	var all sync.WaitGroup
	for i := range 50 {
		id := fmt.Sprint("t", i)
		all.Go(func() {
			for m, err := range client.Watch(ctx, id, "shared") {
				if err != nil {
					t.Errorf("watch %s: %v", id, err)
				} else if m.Status == protocol.Success && m.TaskID == id && m.Result != int64(i) {
					t.Errorf("watch %s: %v", id, m.Result)
				}
			}
		})
		all.Go(func() {
			for _, m := range []*protocol.ResultMeta{state(id, protocol.Started), state("shared", protocol.Started),
				success(id, int64(i)), success("shared", "one")} {
				if err := worker.Store(ctx, []*protocol.ResultMeta{m}); err != nil {
					t.Errorf("store %s: %v", id, err)
				}
			}
			if m, err := client.Get(ctx, id); err != nil || m.Status != protocol.Success {
				t.Errorf("get %s: %v %v", id, m, err)
			}
		})
	}
	all.Wait()
}

func testClose(t *testing.T, open Opener) {
	b := open(t, backends.Options{})
	w := watch(deadline(t), b, "a")
	w.next(t)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := deadline(t)
	if err := b.Store(ctx, []*protocol.ResultMeta{success("a", nil)}); err == nil {
		t.Error("a closed backend stores")
	}
	if _, err := b.Get(ctx, "a"); err == nil {
		t.Error("a closed backend gets")
	}
	if _, err := b.GetMany(ctx, "a", "b"); err == nil {
		t.Error("a closed backend gets many")
	}
	for _, err := range b.Watch(ctx, "a") {
		if err == nil {
			t.Error("a closed backend watches")
		}
	}
	if ctx.Err() != nil {
		t.Error("a closed backend says so only when the context is done")
	}
}
