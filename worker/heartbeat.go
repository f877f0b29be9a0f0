package worker

import (
	"bytes"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"github.com/gelery/gelery/internal/moduleversion"
	"github.com/gelery/gelery/protocol"
)

// workerEvent tells how the worker is.
func (w *Worker) workerEvent(kind string) event {
	processed := int64(0)
	for _, t := range w.tasks {
		processed += t.total.Load()
	}
	version, _ := moduleversion.Read()
	system := runtime.GOOS // as Python's platform.system writes it
	var m protocol.EventMembers
	return event{kind: kind, members: m.Float("freq", w.events.interval.Seconds()).Int("active", int64(len(w.active.undecided()))).Int("processed", processed).
		Floats("loadavg", loadAverage()...).Text("sw_ident", "gelery").Text("sw_ver", version).
		Text("sw_sys", strings.ToUpper(system[:1])+system[1:])}
}

// loadAverage is the load of the machine over 1, 5 and 15 minutes, rounded up to hundredths as in Celery; zeros where
// there is no /proc to tell it.
func loadAverage() []float64 {
	load := make([]float64, 3)
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return load
	}
	for i, f := range bytes.Fields(text) {
		if n, err := strconv.ParseFloat(string(f), 64); i < len(load) && err == nil {
			load[i] = math.Ceil(n*100) / 100
		}
	}
	return load
}
