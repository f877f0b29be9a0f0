package redis

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/backends/backendstest"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, url string, o backends.Options) *Backend {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b, err := backends.Open(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b.(*Backend)
}

func opener(url string) backendstest.Opener {
	return func(t testing.TB, o backends.Options) backends.Backend { return open(t, url, o) }
}

// raw is a plain client to look at what is stored.
func raw(t testing.TB, url string) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func success(id string) *protocol.ResultMeta {
	return &protocol.ResultMeta{TaskID: id, Status: protocol.Success, Result: int64(1)}
}

func TestContract(t *testing.T) {
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		backendstest.Run(t, func(t testing.TB) backendstest.Opener { return opener(testservice.Redis(t)) })
	})
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		backendstest.Run(t, func(t testing.TB) backendstest.Opener { return opener(tickingMiniredis(t)) })
	})
}

// tickingMiniredis is a miniredis whose clock goes.
func tickingMiniredis(t testing.TB) string {
	t.Helper()
	s, err := miniredis.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	stop, stopped := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(stop); <-stopped })
	go func() {
		defer close(stopped)
		const step = 50 * time.Millisecond
		tick := time.NewTicker(step)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				s.FastForward(step)
			}
		}
	}()
	return "redis://" + s.Addr() + "/0"
}

func TestWhatIsStored(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		options backends.Options
		key     string
		ttl     time.Duration // -1: none
	}{
		{"default", backends.Options{}, "celery-task-meta-a", 24 * time.Hour},
		{"expires", backends.Options{Expires: time.Hour}, "celery-task-meta-a", time.Hour},
		{"below a second", backends.Options{Expires: time.Millisecond}, "celery-task-meta-a", time.Second},
		{"for ever", backends.Options{Expires: -1}, "celery-task-meta-a", -1},
		{"prefix", backends.Options{TransportOptions: map[string]any{"global_keyprefix": "pfx"}}, "pfx_celery-task-meta-a", 24 * time.Hour},
		{"prefix with separator", backends.Options{TransportOptions: map[string]any{"global_keyprefix": "pfx:"}}, "pfx:celery-task-meta-a", 24 * time.Hour},
	}
	url := testservice.Redis(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, ctx := raw(t, url), deadline(t)
			if err := c.FlushDB(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			ps := c.Subscribe(ctx, tt.key)
			defer func() { _ = ps.Close() }()
			if _, err := ps.Receive(ctx); err != nil {
				t.Fatal(err)
			}
			if err := open(t, url, tt.options).Store(ctx, []*protocol.ResultMeta{success("a")}); err != nil {
				t.Fatal(err)
			}
			keys, err := c.Keys(ctx, "*").Result()
			if d := cmp.Diff([]string{tt.key}, keys); d != "" || err != nil {
				t.Fatal(d, err)
			}
			// The server has taken less than a second since.
			if ttl := c.TTL(ctx, tt.key).Val(); tt.ttl < 0 && ttl != -1 || tt.ttl > 0 && (ttl > tt.ttl || ttl < tt.ttl-2*time.Second) {
				t.Errorf("expires in %v, want %v", ttl, tt.ttl)
			}
			stored := c.Get(ctx, tt.key).Val()
			if !json.Valid([]byte(stored)) || !strings.HasPrefix(stored, `{"status": "SUCCESS"`) {
				t.Errorf("stored %s", stored)
			}
			m, err := ps.ReceiveMessage(ctx)
			if err != nil || m.Payload != stored {
				t.Errorf("published %v, %v; stored %s", m, err, stored)
			}
		})
	}
}

func TestStoreIsOneRoundTrip(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	store := func(n int) {
		t.Helper()
		batch := make([]*protocol.ResultMeta, n)
		for i := range batch {
			batch[i] = success(protocol.NewID())
		}
		if err := b.Store(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	store(1) // brings the script to the server
	for _, tt := range []struct{ records, calls int }{{1, 1}, {256, 1}, {257, 2}} {
		if err := c.ConfigResetStat(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		store(tt.records)
		stats, err := c.InfoMap(ctx, "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		calls := stats["Commandstats"]["cmdstat_evalsha"]
		if !strings.HasPrefix(calls, "calls="+string(rune('0'+tt.calls))+",") {
			t.Errorf("%d records: evalsha %q", tt.records, calls)
		}
	}
}

func TestStoreSurvivesLostScript(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	for _, id := range []string{"a", "b"} {
		if err := b.Store(ctx, []*protocol.ResultMeta{success(id)}); err != nil {
			t.Fatal(err)
		}
		if err := c.ScriptFlush(ctx).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStoreOverOtherType(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	if err := c.LPush(ctx, "celery-task-meta-a", "x").Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.Store(ctx, []*protocol.ResultMeta{success("a"), success("b")}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b"} {
		if m, err := b.Get(ctx, id); err != nil || m.Status != protocol.Success {
			t.Errorf("%s: %v %v", id, m, err)
		}
	}
}

// Documents as Python's json with and without spaces writes them, and one that is broken.
func TestForeignDocuments(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	set := func(id, text string) {
		t.Helper()
		if err := c.Set(ctx, "celery-task-meta-"+id, text, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	set("spaced", `{"status": "SUCCESS", "result": 5, "traceback": null, "children": [], "date_done": null, "task_id": "spaced"}`)
	set("tight", `{"status":"SUCCESS","result":5,"task_id":""}`)
	set("broken", `{"status": "SUCC`)
	for _, id := range []string{"spaced", "tight"} {
		if err := b.Store(ctx, []*protocol.ResultMeta{{TaskID: id, Status: protocol.Started}}); err != nil {
			t.Fatal(err)
		}
		if m, err := b.Get(ctx, id); err != nil || m.Result != int64(5) || m.TaskID != id {
			t.Errorf("%s: %+v %v", id, m, err)
		}
	}
	for m, err := range b.Watch(ctx, "broken") {
		var decodeErr *backends.DecodeError
		if !errors.As(err, &decodeErr) || decodeErr.TaskID != "broken" {
			t.Errorf("broken document: %v %v", m, err)
		}
	}
}

func TestUnsubscribesWhenNobodyWaits(t *testing.T) {
	t.Parallel()
	url := testservice.Redis(t)
	b, c, ctx := open(t, url, backends.Options{}), raw(t, url), deadline(t)
	for m, err := range b.Watch(ctx, "a", "b") {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.PubSubChannels(ctx, "*").Val()); n != 2 && m.Status == protocol.Pending {
			t.Errorf("%d channels while waiting", n)
		}
		if m.TaskID == "b" {
			break
		}
		if err := b.Store(ctx, []*protocol.ResultMeta{success("a")}); err != nil {
			t.Fatal(err)
		}
	}
	until(t, func() bool { return len(c.PubSubChannels(ctx, "*").Val()) == 0 }, "no channel is left")
	l := b.listener
	until(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.topics)+len(l.dirty)+len(l.confirmed)+len(l.fetches)+len(l.sent) == 0
	}, "nothing is remembered")
}

func TestOpenErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url     string
		options backends.Options
		want    string
	}{
		{"redis://:SECRET@h/x", backends.Options{}, "database"},
		{"redis://h", backends.Options{TransportOptions: map[string]any{"global_prefix": "x"}}, "known: client_name, global_keyprefix"},
		{"redis://h", backends.Options{TransportOptions: map[string]any{"global_keyprefix": 7}}, "not a string"},
		{"redis://h", backends.Options{Serializer: "xml"}, "xml"},
		{"redis://:SECRET@127.0.0.1:1/0", backends.Options{Logger: slog.New(slog.DiscardHandler)}, "refused"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		_, err := backends.Open(ctx, tt.url, tt.options)
		cancel()
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", tt.url, err)
		}
	}
	ok := backends.Options{TransportOptions: map[string]any{"visibility_timeout": 18000, "retry_policy": map[string]any{"timeout": 5.0}}}
	open(t, testservice.Miniredis(t), ok)
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	b, ctx := open(t, testservice.Miniredis(t), backends.Options{}), deadline(t)
	b.largest = 1000 // half a gigabyte is too much for a test
	big := &protocol.ResultMeta{TaskID: "big", Status: protocol.Success, Result: strings.Repeat("x", 1000)}
	err := b.Store(ctx, []*protocol.ResultMeta{success("a"), big})
	var encodeErr *backends.EncodeError
	if !errors.As(err, &encodeErr) || encodeErr.TaskID != "big" {
		t.Errorf("got %v", err)
	}
	if m, err := b.Get(ctx, "a"); err != nil || m.Status != protocol.Pending {
		t.Errorf("the other record is %v, %v", m, err)
	}
}
