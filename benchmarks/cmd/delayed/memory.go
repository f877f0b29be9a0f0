package main

import (
	"sync"
	"time"

	"github.com/gelery/gelery/benchmarks/internal/lab"
)

// memory reads a process's resident memory until it is stopped, and keeps the greatest it has seen.
type memory struct {
	pid  int
	quit chan struct{}
	once sync.Once
	done sync.WaitGroup
	peak float64 // MiB
}

func watchMemory(pid int) *memory {
	m := &memory{pid: pid, quit: make(chan struct{})}
	m.done.Go(func() {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			m.peak = max(m.peak, m.read())
			select {
			case <-tick.C:
			case <-m.quit:
				return
			}
		}
	})
	return m
}

// read is the memory now, in MiB; 0 if the process is gone.
func (m *memory) read() float64 {
	mib, err := lab.Resident(m.pid)
	if err != nil {
		return 0
	}
	return mib
}

// stop ends the reading and returns the greatest.
func (m *memory) stop() float64 {
	m.once.Do(func() { close(m.quit) })
	m.done.Wait()
	return m.peak
}
