package scheduler

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// A thousand entries are due at once: planned, marked in a state file, encoded and reported.
func BenchmarkTick(b *testing.B) {
	var all []*Entry
	for i := range 1000 {
		all = append(all, entry(b, fmt.Sprint("entry-", i), `{task: bench.one, schedule: 1, args: [1, 2]}`))
	}
	store, err := NewLocal(LocalConfig{Entries: all, StateFile: filepath.Join(b.TempDir(), "state")})
	if err != nil {
		b.Fatal(err)
	}
	lease, err := store.Lead(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	beat, err := New(client(b, &ledger{}), store, Config{Logger: quiet(b)})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	beat.now = func() time.Time { return now }
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Second)
		if _, err := beat.tick(b.Context(), lease, newRetrier(beat, lease)); err != nil {
			b.Fatal(err)
		}
	}
	if sent := beat.Stats().Sent; sent != int64(b.N)*1000 {
		b.Fatalf("%d runs in %d ticks", sent, b.N)
	}
}
