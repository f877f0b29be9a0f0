package redis

import (
	"context"
	"log/slog"
	"regexp"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
	"github.com/gelery/gelery/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContractMiniredis(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t testing.TB) transporttest.Harness {
		h := harness(testservice.Miniredis(t), nil)
		h.GoJSON = true
		return h
	})
}

func TestContractRedis(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t testing.TB) transporttest.Harness { return realHarness(testservice.Redis(t), nil) })
}

func TestContractRedisWithPrefix(t *testing.T) {
	t.Parallel()
	transporttest.Run(t, func(t testing.TB) transporttest.Harness {
		return realHarness(testservice.Redis(t), map[string]any{"global_keyprefix": "pre[fix*]:"})
	})
}

// realHarness is harness for a real server, which can tell whether a consumer waits: by a blocked BLMOVE for each list.
func realHarness(url string, o map[string]any) transporttest.Harness {
	h := harness(url, o)
	h.Waiting = func(t testing.TB, c transport.Consumer) {
		rdb, want := client(t, url), len(c.(*consumer).source().waker.waiters)
		blocked := regexp.MustCompile(`(?m) flags=\S*b\S* .* cmd=blmove `)
		for ctx := deadline(t); ctx.Err() == nil; {
			if len(blocked.FindAllString(rdb.ClientList(ctx).Val(), -1)) >= want {
				return
			}
		}
		t.Fatalf("the consumer does not wait on all of its %d lists", want)
	}
	return h
}

func harness(url string, o map[string]any) transporttest.Harness {
	return transporttest.Harness{
		LowFirst: true,
		Virtual:  true,
		Open:     func(t testing.TB) transport.Transport { return dial(t, url, o) },
		Inject: func(t testing.TB, queue string, raw []byte) {
			prefix, _ := o["global_keyprefix"].(string)
			if err := client(t, url).LPush(t.Context(), prefix+queue, raw).Err(); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func dial(t testing.TB, url string, o map[string]any) *redisTransport {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tr, err := transport.Open(ctx, url, transport.Options{TransportOptions: o,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return tr.(*redisTransport)
}

// client is a plain client of the same database, to look at keys as an outsider.
func client(t testing.TB, url string) *goredis.Client {
	t.Helper()
	o, err := goredis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Protocol, o.DisableIdentity = 2, true
	c := goredis.NewClient(o)
	t.Cleanup(func() { _ = c.Close() })
	return c
}
