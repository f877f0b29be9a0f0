package redis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
)

// serverCPU is the processor time the server has used.
func serverCPU(b *testing.B, c *redis.Client) time.Duration {
	b.Helper()
	info, err := c.InfoMap(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	var total time.Duration
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		var seconds float64
		if _, err := fmt.Sscan(info["CPU"][name], &seconds); err != nil {
			b.Fatal(err)
		}
		total += time.Duration(seconds * float64(time.Second))
	}
	return total
}

// BenchmarkStore stores batches, one operation is one record. "plain" is a pipeline of SETEX and PUBLISH without the
// look at what is there: what the script is measured against.
func BenchmarkStore(b *testing.B) {
	for _, n := range []int{1, 10, 100, 256} {
		batch := func() []*protocol.ResultMeta {
			metas := make([]*protocol.ResultMeta, n)
			for i := range metas {
				metas[i] = &protocol.ResultMeta{TaskID: protocol.NewID(), Status: protocol.Success, Result: int64(3)}
			}
			return metas
		}
		run := func(name string, store func(*Backend, []*protocol.ResultMeta) error) {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				url := testservice.Redis(b)
				backend, c := open(b, url, backends.Options{}), raw(b, url)
				before := serverCPU(b, c)
				b.ReportAllocs()
				records := 0
				for b.Loop() {
					if records++; records%n != 0 {
						continue
					}
					if err := store(backend, batch()); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64((serverCPU(b, c)-before).Nanoseconds())/float64(b.N), "server-ns/op")
			})
		}
		run("script", func(b *Backend, batch []*protocol.ResultMeta) error { return b.Store(context.Background(), batch) })
		run("plain", func(b *Backend, batch []*protocol.ResultMeta) error {
			pipe := b.client.Pipeline()
			for _, m := range batch {
				document, err := b.codec.Append(nil, m)
				if err != nil {
					return err
				}
				pipe.SetEx(context.Background(), b.key(m.TaskID), document, defaultExpires)
				pipe.Publish(context.Background(), b.key(m.TaskID), document)
			}
			_, err := pipe.Exec(context.Background())
			return err
		})
	}
}
