package worker

import (
	"bytes"
	"os"
	"strconv"
)

// limitsMemory: the memory of a child can be looked at while it runs.
const limitsMemory = true

// residentMemory is how much memory a process has resident, in bytes; 0 when that cannot be told.
func residentMemory(pid int) int64 {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	if f := bytes.Fields(text); len(f) > 1 { // size, resident, …, in pages
		pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
		return pages * int64(os.Getpagesize())
	}
	return 0
}

// peakMemory is the most memory this process has had resident, in bytes. getrusage would tell that of its parent where
// that had more.
func peakMemory() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte("\nVmHWM:"))
	if f := bytes.Fields(rest); len(f) > 0 {
		kib, _ := strconv.ParseInt(string(f[0]), 10, 64)
		return kib << 10
	}
	return 0
}
