//go:build unix && !linux

package worker

import (
	"runtime"
	"syscall"
)

// limitsMemory: the memory of another process cannot be looked at cheaply here.
const limitsMemory = false

func residentMemory(int) int64 { return 0 }

// peakMemory is the most memory this process has had resident, in bytes.
func peakMemory() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int64(usage.Maxrss) // the others count KiB
	}
	return int64(usage.Maxrss) << 10
}
