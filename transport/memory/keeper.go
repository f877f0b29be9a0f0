package memory

import (
	"context"
	"time"

	"github.com/gelery/gelery/transport"
)

var _ transport.Keeper = memoryTransport{}

// Remember implements transport.Keeper.
func (t memoryTransport) Remember(_ context.Context, set string, members []string, b transport.KeeperBounds) error {
	now := time.Now()
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	kept := t.b.kept[set]
	if kept == nil {
		kept = map[string]time.Time{}
		t.b.kept[set] = kept
	}
	for m, at := range kept {
		if now.Sub(at) >= b.Age {
			delete(kept, m)
		}
	}
	for _, m := range members {
		kept[m] = now
		if len(kept) > b.Members {
			oldest := m
			for other, at := range kept {
				if at.Before(kept[oldest]) {
					oldest = other
				}
			}
			delete(kept, oldest)
		}
	}
	return nil
}

// Recall implements transport.Keeper.
func (t memoryTransport) Recall(_ context.Context, set string, within time.Duration) ([]transport.Remembered, error) {
	now := time.Now()
	t.b.mu.Lock()
	defer t.b.mu.Unlock()
	var out []transport.Remembered
	for m, at := range t.b.kept[set] {
		if age := now.Sub(at); age <= within {
			out = append(out, transport.Remembered{Member: m, Age: age})
		}
	}
	return out, nil
}
