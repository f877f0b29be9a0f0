//go:build unix

package monitor

import (
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// cpuTime is what the process has used of processors, its garbage collection included.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkEvents is the way of events from the broker's message into the cluster state, 100,000 tasks in it, on one core. It tells
// events for each second of CPU time, and the memory that the process has of the system at the end.
func BenchmarkEvents(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	s, err := NewState(StateConfig{MaxTasks: 100_000})
	if err != nil {
		b.Fatal(err)
	}
	r, err := NewReceiver(nil, ReceiverConfig{})
	if err != nil {
		b.Fatal(err)
	}
	g := &generator{}
	for s.Totals().Forgotten == 0 {
		s.Apply(r.read(&transport.Delivery{Message: g.message()}))
	}
	messages := make([]*protocol.Message, 100)
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	spent, began := time.Duration(0), cpuTime(b)
	for b.Loop() {
		if n%len(messages) == 0 { // made beside the clock
			b.StopTimer()
			spent += cpuTime(b) - began
			for i := range messages {
				m := *g.message()
				m.Body = append([]byte(nil), m.Body...)
				messages[i] = &m
			}
			b.StartTimer()
			began = cpuTime(b)
		}
		s.Apply(r.read(&transport.Delivery{Message: messages[n%len(messages)]}))
		n++
	}
	spent += cpuTime(b) - began
	b.ReportMetric(float64(n*listLength)/spent.Seconds(), "events/cpu-s")
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys-m.HeapReleased)/1e6, "MB")
	b.ReportMetric(0, "ns/op")
}
