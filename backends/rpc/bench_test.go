package rpc

import (
	"testing"

	"github.com/gelery/gelery/backends"
	"github.com/gelery/gelery/protocol"
)

// BenchmarkResults sends results in batches of 100 and waits for all of them: a round for each batch.
func BenchmarkResults(b *testing.B) {
	for _, broker := range brokers {
		b.Run(broker.name, func(b *testing.B) {
			url := broker.url(b)
			client, worker := open(b, connect(b, url), backends.Options{}), open(b, connect(b, url), backends.Options{})
			ctx := b.Context()
			sent := 0
			b.ReportAllocs()
			for b.Loop() {
				batch := make([]*protocol.ResultMeta, 100)
				ids := make([]string, len(batch))
				for i := range batch {
					ids[i] = protocol.NewID()
				}
				replyTo, err := client.Expect(ctx, ids...)
				if err != nil {
					b.Fatal(err)
				}
				for i := range batch {
					batch[i] = success(ids[i], replyTo)
				}
				if err := worker.Store(ctx, batch); err != nil {
					b.Fatal(err)
				}
				for _, err := range client.Watch(ctx, ids...) {
					if err != nil {
						b.Fatal(err)
					}
				}
				sent += len(batch)
			}
			b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "results/s")
		})
	}
}
