package monitor

import "sync/atomic"

// adjust is what Lamport's clock does at the receipt of a message.
func adjust(clock *atomic.Int64, at int64) {
	for {
		now := clock.Load()
		if clock.CompareAndSwap(now, max(now, min(at, maxClock))+1) {
			return
		}
	}
}
