//go:build !unix

package worker

// What stands here in place of the process pool, which needs Unix: Config refuses it.

const (
	hasProcesses = false
	limitsMemory = false
)

type child struct{}

func (*child) pid() int { return 0 }

type processes struct{ goroutines }

func newProcesses(w *Worker, _ bool) *processes { return &processes{goroutines{w}} }

func peakMemory() int64        { return 0 }
func residentMemory(int) int64 { return 0 }
func absorbSignals()           {}
func endGroup()                {}
