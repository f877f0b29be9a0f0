package redis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// forEachServer runs f on a real Redis and on the fake one.
func forEachServer(t *testing.T, f func(t *testing.T, url string)) {
	for name, start := range map[string]func(testing.TB) string{"miniredis": testservice.Miniredis, "redis": testservice.Redis} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, start(t))
		})
	}
}

func TestDepthsDespiteWrongTypes(t *testing.T) {
	t.Parallel()
	const step3 = "half" + defaultSep + "3"
	forEachServer(t, func(t *testing.T, url string) {
		rdb, tr := client(t, url), dial(t, url, nil)
		t.Cleanup(func() { _ = tr.Close(context.Background()) })
		publish(t, tr, publication("good", "a", 0), publication("half", "b", 6))
		rdb.Set(t.Context(), "bad", "text", 0)
		rdb.Set(t.Context(), step3, "text", 0)
		rdb.Set(t.Context(), "_gelery.quarantine.aside", "text", 0)
		depths := func() []transport.Depth {
			ds, err := tr.Depths(deadline(t), []string{"bad", "good", "half", "aside"})
			if err != nil {
				t.Fatal(err)
			}
			for i := range ds {
				ds[i].Error = strings.ReplaceAll(ds[i].Error, "WRONGTYPE Operation against a key holding the wrong kind of value", "W")
			}
			return ds
		}
		want := []transport.Depth{
			{Queue: "bad", Messages: -1, ByPriority: map[int]int64{3: 0, 6: 0, 9: 0}, Error: `key "bad": W`},
			{Queue: "good", Messages: 1, ByPriority: map[int]int64{0: 1, 3: 0, 6: 0, 9: 0}},
			{Queue: "half", Messages: -1, ByPriority: map[int]int64{0: 0, 6: 1, 9: 0}, Error: `key "half\x06\x163": W`},
			{Queue: "aside", ByPriority: map[int]int64{0: 0, 3: 0, 6: 0, 9: 0}, Quarantined: -1, Error: `key "_gelery.quarantine.aside": W`},
		}
		if d := cmp.Diff(want, depths()); d != "" {
			t.Error(d)
		}
		rdb.Set(t.Context(), "unacked", "text", 0)
		for i := range want {
			want[i].Unacked = -1
			want[i].Error = strings.TrimPrefix(want[i].Error+`; key "unacked": W`, "; ")
		}
		if d := cmp.Diff(want, depths()); d != "" {
			t.Errorf("with unacked of the wrong type: %s", d)
		}
	})
}

func TestPurgeLeavesWrongTypes(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb, tr := client(t, url), dial(t, url, nil)
		t.Cleanup(func() { _ = tr.Close(context.Background()) })
		publish(t, tr, publication("q", "a", 6))
		for key, purge := range map[string]func(context.Context, string) (int64, error){"q": tr.Purge, "_gelery.quarantine.q": tr.PurgeQuarantine} {
			rdb.Set(t.Context(), key, "not ours", 0)
			n, err := purge(deadline(t), "q")
			if wantN := map[string]int64{"q": 1}[key]; n != wantN || err == nil || !strings.Contains(err.Error(), fmt.Sprintf("key %q: WRONGTYPE ", key)) {
				t.Errorf("purge of %s: %d, %v; expected %d and an error that names the key", key, n, err, wantN)
			}
			if got := rdb.Get(t.Context(), key).Val(); got != "not ours" {
				t.Errorf("%s holds %q after the purge", key, got)
			}
		}
		if _, err := tr.Quarantined(deadline(t), "q", 1); err == nil || !strings.Contains(err.Error(), `key "_gelery.quarantine.q": WRONGTYPE `) {
			t.Errorf("quarantined: %v; expected an error that names the key", err)
		}
	})
}

// TestDepthsOfWhatPythonHolds: a Python worker notes exchange and routing key of what it holds, not the queue.
func TestDepthsOfWhatPythonHolds(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb, tr := client(t, url), dial(t, url, nil)
		t.Cleanup(func() { _ = tr.Close(context.Background()) })
		for _, q := range []transport.Queue{
			{Name: "one", Exchange: "topics", ExchangeType: "topic", RoutingKey: "a.*"},
			{Name: "two", Exchange: "topics", ExchangeType: "topic", RoutingKey: "#"},
			{Name: "three", Exchange: "direct", RoutingKey: "k"},
		} {
			if err := tr.Declare(deadline(t), q); err != nil {
				t.Fatal(err)
			}
		}
		for i, route := range []string{`"topics", "a.b"`, `"topics", "a.b"`, `"topics", "c"`, `"direct", "k"`, `"direct", "one"`, `"", "plain"`, `null, "plain"`, `5`} {
			rdb.HSet(t.Context(), "unacked", fmt.Sprint("tag", i), `[{"body": ""}, `+route+`]`)
			rdb.ZAdd(t.Context(), "unacked_index", goredis.Z{Score: float64(time.Now().Unix()), Member: fmt.Sprint("tag", i)})
		}
		want := map[string]int64{"one": 2, "two": 3, "three": 1, "plain": 2, "a.b": 0, "k": 0, "c": 0, "": 0}
		for q, n := range want {
			ds, err := tr.Depths(deadline(t), []string{q})
			if err != nil || ds[0].Unacked != n || ds[0].Error != "" {
				t.Errorf("%q: %+v, %v; expected %d unacked", q, ds, err, n)
			}
		}
		rdb.Set(t.Context(), "_kombu.binding.direct", "text", 0)
		ds, err := tr.Depths(deadline(t), []string{"plain"})
		if err != nil || ds[0].Unacked != -1 || !strings.Contains(ds[0].Error, `key "_kombu.binding.direct": `) {
			t.Errorf("with a binding set of the wrong type: %+v, %v; expected -1 and its key", ds, err)
		}
	})
}
