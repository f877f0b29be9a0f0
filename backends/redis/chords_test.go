package redis

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

func count(t *testing.T, b *Backend, group string, place int, m *protocol.ResultMeta) backends.ChordState {
	t.Helper()
	states, err := b.CountParts(deadline(t), []backends.ChordPart{{Group: group, Index: &place, Meta: m}})
	if err != nil {
		t.Fatal(err)
	}
	return states[0]
}

func start(t *testing.T, b *Backend, group string, size int) {
	t.Helper()
	if err := b.StartChords(deadline(t), []backends.ChordSize{{Group: group, Size: size}}); err != nil {
		t.Fatal(err)
	}
}

// What is in Redis, as MONITOR shows it of Celery 5.6.
func TestWhatIsStoredOfChords(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b := open(t, url, backends.Options{Expires: time.Hour, TransportOptions: map[string]any{"global_keyprefix": "pfx"}})
	c, ctx := raw(t, url), deadline(t)
	const key = "pfx_celery-taskset-meta-g"
	ps := c.Subscribe(ctx, key+".s")
	defer func() { _ = ps.Close() }()
	if _, err := ps.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	start(t, b, "g", 3)
	if m, err := ps.ReceiveMessage(ctx); err != nil || m.Payload != "3" {
		t.Errorf("published %v, %v", m, err)
	}
	if err := b.GrowChord(ctx, backends.ChordGrowth{Group: "g", Part: "c", Size: 1, By: "b"}); err != nil {
		t.Fatal(err)
	}
	count(t, b, "g", 0, success("a"))
	count(t, b, "g", 1, &protocol.ResultMeta{TaskID: "b", Status: protocol.Failure,
		Exception: &protocol.Exception{Type: "ValueError", Module: "builtins", Args: []any{"bad"}}})
	if _, err := b.CountParts(ctx, []backends.ChordPart{{Group: "g", Meta: success("c")}}); err != nil {
		t.Fatal(err)
	}
	wantParts := []redis.Z{
		{Score: 0, Member: `[1, "a", "SUCCESS", 1]`},
		{Score: 1, Member: `[1, "b", "FAILURE", {"exc_type": "ValueError", "exc_message": ["bad"], "exc_module": "builtins"}]`},
	}
	parts := c.ZRangeWithScores(ctx, key+".j", 0, -1).Val()
	if len(parts) != 3 || parts[2].Member != `[1, "c", "SUCCESS", 1]` || fmt.Sprint(parts[2].Score) != "+Inf" {
		t.Errorf("parts: %v", parts)
	} else if d := cmp.Diff(wantParts, parts[:2]); d != "" {
		t.Error(d)
	}
	if size, extra := c.Get(ctx, key+".s").Val(), c.Get(ctx, key+".t").Val(); size != "3" || extra != "1" {
		t.Errorf("size %q, extra %q", size, extra)
	}
	for _, suffix := range []string{".j", ".s", ".t"} {
		if ttl := c.TTL(ctx, key+suffix).Val(); ttl <= 0 || ttl > time.Hour {
			t.Errorf("%s expires in %v", suffix, ttl)
		}
	}
	if err := b.EndChords(ctx, []backends.ChordEnd{{Group: "g"}}); err != nil {
		t.Fatal(err)
	}
	keys := c.Keys(ctx, "pfx_*g").Val()
	if d := cmp.Diff([]string{"pfx__gelery.chord.g"}, keys); d != "" || c.Get(ctx, keys[0]).Val() != "ended" {
		t.Errorf("after the end: %s", d)
	}
	if ttl := c.TTL(ctx, keys[0]).Val(); ttl <= 0 || ttl > time.Hour {
		t.Errorf("the mark expires in %v", ttl)
	}
}

// Programs look into the parts of a chord that has failed, as one may with Celery. Marks go even if results never do.
func TestFailedChordKeepsItsParts(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{Expires: -1}), raw(t, url), deadline(t)
	start(t, b, "g", 2)
	count(t, b, "g", 0, success("a"))
	bad := &protocol.ResultMeta{TaskID: "b", Status: protocol.Failure, Exception: &protocol.Exception{Type: "ValueError", Module: "builtins"}}
	if s := count(t, b, "g", 1, bad); s.Failed == nil {
		t.Fatalf("the chord has not failed: %+v", s)
	}
	mark := "_gelery.chord.g"
	if ttl := c.TTL(ctx, mark).Val(); ttl <= 0 || ttl > 24*time.Hour {
		t.Errorf("the mark of a complete chord expires in %v", ttl)
	}
	if err := b.EndChords(ctx, []backends.ChordEnd{{Group: "g", Failed: true}}); err != nil {
		t.Fatal(err)
	}
	if n := c.ZCard(ctx, "celery-taskset-meta-g.j").Val(); n != 2 {
		t.Errorf("%d parts are left, expected both", n)
	}
	if n := c.Exists(ctx, "celery-taskset-meta-g.s", "celery-taskset-meta-g.t").Val(); n != 0 {
		t.Error("its size is left: a Python worker that repeats a part would fail it again")
	}
	if s := count(t, b, "g", 0, success("a")); s.Complete {
		t.Error("it is complete again")
	}
	if _, err := b.Claim(ctx, "name", "holder"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{mark, "celery-taskset-meta-g.j", "_gelery.claim.name"} {
		if ttl := c.TTL(ctx, key).Val(); ttl <= 0 || ttl > 24*time.Hour {
			t.Errorf("%s expires in %v", key, ttl)
		}
	}
}

// What a Python worker has counted twice, with different results, is counted once here.
func TestPartsThatPythonCountedTwice(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	start(t, b, "g", 3)
	members := []redis.Z{{Score: 0, Member: `[1, "a", "SUCCESS", 1]`}, {Score: 0, Member: `[1, "a", "SUCCESS", 2]`}, {Score: 0, Member: `[1, "a", "SUCCESS", 3]`}}
	if err := c.ZAdd(ctx, "celery-taskset-meta-g.j", members...).Err(); err != nil {
		t.Fatal(err)
	}
	if s := count(t, b, "g", 1, success("b")); s.Complete {
		t.Errorf("complete without a part: %+v", s)
	}
	if n := c.ZCard(ctx, "celery-taskset-meta-g.j").Val(); n != 2 {
		t.Errorf("%d parts of two are left", n)
	}
	want := backends.ChordState{Complete: true, Results: []any{int64(3), int64(1), int64(1)}}
	if d := cmp.Diff(want, count(t, b, "g", 2, success("c"))); d != "" {
		t.Error(d)
	}
}

func TestChordsWithoutOrder(t *testing.T) {
	t.Parallel()
	for _, server := range []func(testing.TB) string{testservice.Redis, testservice.Miniredis} {
		url := server(t)
		o := backends.Options{TransportOptions: map[string]any{"result_chord_ordered": false}}
		b, other, c := open(t, url, o), open(t, url, o), raw(t, url)
		start(t, b, "g", 3)
		part := func(id string, result any) *protocol.ResultMeta {
			return &protocol.ResultMeta{TaskID: id, Status: protocol.Success, Result: result}
		}
		for i, m := range []*protocol.ResultMeta{part("x", "first"), part("y", "old"), part("x", "first"), part("y", "second"), part("y", "second")} {
			if s := count(t, b, "g", 9-i, m); s.Complete {
				t.Errorf("complete after %d: %+v", i, s)
			}
			b, other = other, b
		}
		want := backends.ChordState{Complete: true, Results: []any{"first", "second", "third"}}
		if d := cmp.Diff(want, count(t, b, "g", 0, part("z", "third"))); d != "" {
			t.Error(d)
		}
		if s := count(t, b, "g", 0, part("y", "second")); s.Complete {
			t.Errorf("complete twice: %+v", s)
		}
		again := count(t, other, "g", 0, part("z", "last"))
		slices.SortFunc(again.Results, func(x, y any) int { return strings.Compare(x.(string), y.(string)) })
		want.Results = []any{"first", "last", "second"}
		if d := cmp.Diff(want, again); d != "" {
			t.Error(d)
		}
		if kind := c.Type(deadline(t), "celery-taskset-meta-g.j").Val(); kind != "list" {
			t.Errorf("parts are in a %s", kind)
		}
	}
}

// Whatever is wrong with one chord, it is told once, and no other chord suffers.
func TestBrokenChords(t *testing.T) {
	t.Parallel()
	const key = "celery-taskset-meta-bad"
	for name, tt := range map[string]struct {
		command []any
		want    string // in the error; empty: it completes nothing
	}{
		"parts in a list":     {[]any{"RPUSH", key + ".j", "x"}, "result_chord_ordered"},
		"parts in a text":     {[]any{"SET", key + ".j", "x"}, "is a string and not a zset"},
		"part is no JSON":     {[]any{"ZADD", key + ".j", "0", "[1"}, "part of a chord"},
		"part is no list":     {[]any{"ZADD", key + ".j", "0", `{"a": 1}`}, "list of four"},
		"part has no state":   {[]any{"ZADD", key + ".j", "0", `[1, "x", null, 1]`}, "no state"},
		"size is a word":      {[]any{"SET", key + ".s", "many"}, "not a number"},
		"size is a list":      {[]any{"RPUSH", key + ".s", "2"}, ""},
		"extra is a word":     {[]any{"SET", key + ".t", "some"}, "not a number"},
		"group is no JSON":    {[]any{"SET", key, "{"}, "result of task bad"},
		"group has no tuple":  {[]any{"SET", key, `{"result": 5}`}, "result tuple"},
		"group is a list":     {[]any{"RPUSH", key, "x"}, "-"},
		"mark is a list":      {[]any{"RPUSH", "_gelery.chord.bad", "x"}, "-"},
		"result is not there": {[]any{"SET", key, `{"result": [["bad", null], [[["never", null], null]]]}`}, "task never of group bad is not stored"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := testservice.Redis(t)
			b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
			start(t, b, "bad", 2)
			start(t, b, "good", 2)
			if err := c.Do(ctx, "DEL", tt.command[1]).Err(); err != nil {
				t.Fatal(err)
			}
			if err := c.Do(ctx, tt.command...).Err(); err != nil {
				t.Fatal(err)
			}
			var errs []error
			complete := 0
			for place, id := range []string{"a", "b"} {
				states, err := b.CountParts(ctx, []backends.ChordPart{
					{Group: "bad", Index: &place, Meta: success(id)}, {Group: "good", Index: &place, Meta: success(id)}})
				if err != nil {
					t.Fatal(err)
				}
				if states[0].Complete {
					complete++
					errs = append(errs, states[0].Err)
				}
				if states[1].Complete != (id == "b") || states[1].Err != nil {
					t.Errorf("the other chord: %+v", states[1])
				}
			}
			switch {
			case tt.want == "" && complete > 0, tt.want != "" && complete != 1:
				t.Errorf("complete %d times: %v", complete, errs)
			case tt.want == "-" && errs[0] != nil:
				t.Error(errs[0])
			case len(tt.want) > 1 && (errs[0] == nil || !strings.Contains(errs[0].Error(), tt.want)):
				t.Errorf("got %v, want %s", errs[0], tt.want)
			}
		})
	}
}

func TestGroupsAsStored(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	group := &protocol.ResultTuple{ID: "g", Children: []protocol.ResultTuple{{ID: "a"}, {ID: "b"}}}
	ps := c.Subscribe(ctx, "celery-taskset-meta-g")
	defer func() { _ = ps.Close() }()
	if _, err := ps.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.SaveGroup(ctx, group); err != nil {
		t.Fatal(err)
	}
	const want = `{"result":[["g",null],[[["a",null],null],[["b",null],null]]]}`
	if got := c.Get(ctx, "celery-taskset-meta-g").Val(); got != want {
		t.Errorf("stored %s", got)
	}
	if m, err := ps.ReceiveMessage(ctx); err != nil || m.Payload != want {
		t.Errorf("published %v, %v", m, err)
	}
	if ttl := c.TTL(ctx, "celery-taskset-meta-g").Val(); ttl <= 0 || ttl > 24*time.Hour {
		t.Errorf("expires in %v", ttl)
	}
}

// Ten thousand parts cost about what as many results cost, whether they have places or not.
func BenchmarkCountParts(b *testing.B) {
	url := testservice.Redis(b)
	backend, ctx := open(b, url, backends.Options{}), b.Context()
	for _, placed := range []bool{true, false} {
		b.Run(fmt.Sprint("placed=", placed), func(b *testing.B) {
			const size = 10_000
			for n := 0; b.Loop(); n++ {
				group := protocol.NewID()
				if err := backend.StartChords(ctx, []backends.ChordSize{{Group: group, Size: size}}); err != nil {
					b.Fatal(err)
				}
				complete := 0
				for first := 0; first < size; first += 100 {
					parts := make([]backends.ChordPart, 100)
					for i := range parts {
						place := first + i
						parts[i] = backends.ChordPart{Group: group, Meta: success(protocol.NewID())}
						if placed {
							parts[i].Index = &place
						}
					}
					states, err := backend.CountParts(ctx, parts)
					if err != nil {
						b.Fatal(err)
					}
					for _, s := range states {
						if s.Complete {
							complete += len(s.Results)
						}
					}
				}
				if complete != size {
					b.Fatalf("complete with %d results", complete)
				}
				if err := backend.EndChords(ctx, []backends.ChordEnd{{Group: group}}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/size, "µs/part")
		})
	}
}
