package worker

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
)

// terminateRuns ends the running tasks that the function chooses: REVOKED with "terminated", their contexts cancelled with
// the cause task.ErrRevoked, their processes killed where they have one. The signal is for the log. It returns their ids.
func (w *Worker) terminateRuns(choose func(*protocol.Request) bool, signal int) (ids []string) {
	for _, e := range w.active.those(choose) {
		c := completion{state: protocol.Revoked, exception: revokedException("terminated"), signal: int8(signal)}
		if e.end(c, task.ErrRevoked) {
			w.log.Info(fmt.Sprintf("Terminating %s (%d)", e.request.ID, signal), "task", e.request.Task, "task_id", e.request.ID)
			ids = append(ids, e.request.ID)
		}
	}
	return ids
}

// those are the executions whose requests the function chooses.
func (a *active) those(choose func(*protocol.Request) bool) []*execution {
	return slices.DeleteFunc(a.all(), func(e *execution) bool { return !choose(e.request) })
}

// signals are the names of POSIX signals with Linux's numbers, which is what Celery answers with.
var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
	"SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18, "STOP": 19, "TSTP": 20, "TTIN": 21,
	"TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27, "WINCH": 28, "IO": 29, "PWR": 30, "SYS": 31}

// signalNumber reads a signal as remote control names it: with or without SIG, or by its number; nil is TERM.
func signalNumber(v any) (int, error) {
	switch v := v.(type) {
	case nil:
		return signals["TERM"], nil
	case int64:
		if v > 0 && v < 65 {
			return int(v), nil
		}
	case string:
		if n, ok := signals[strings.TrimPrefix(v, "SIG")]; ok {
			return n, nil
		}
		name := "SIG" + strings.TrimPrefix(v, "SIG")
		return 0, pythonError("AttributeError", "module 'signal' has no attribute '"+name+"'")
	}
	return 0, pythonError("TypeError", "signal name must be uppercase string.")
}
