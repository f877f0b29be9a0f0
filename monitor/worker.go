package monitor

import (
	"time"

	"github.com/gelery/gelery/protocol"
)

const (
	// defaultFreq is how often a worker that has not told sends heartbeats. Celery's.
	defaultFreq = 60 * time.Second
	// expireWindow is how many times its heartbeat's interval a worker may be silent: Celery's HEARTBEAT_EXPIRE_WINDOW, 200 %.
	expireWindow = 2
	// maxFreq bounds the interval a worker tells.
	maxFreq = time.Hour
	// maxOvertaken bounds by how much the time of an event may lie before that of one that came earlier. What lies further back
	// was not overtaken: the worker's clock was wrong, and is set. It is how far clocks may differ for Celery, HEARTBEAT_DRIFT_MAX.
	maxOvertaken = 16 * time.Second
)

// Worker is what events have told of a worker: Celery's celery.events.state.Worker.
type Worker struct {
	Hostname  string     `json:"hostname"`           // its node name
	Alive     bool       `json:"alive"`              // as of when it was asked for: heard within twice Freq, and not gone
	Offline   bool       `json:"offline"`            // it has told that it stops
	PID       int        `json:"pid"`                // of its main process
	Freq      float64    `json:"freq"`               // seconds between its heartbeats; a minute until it has told
	Active    int64      `json:"active"`             // tasks that run
	Processed int64      `json:"processed"`          // tasks accepted since its start
	LoadAvg   [3]float64 `json:"loadavg"`            // of its host, over 1, 5 and 15 minutes
	SwIdent   string     `json:"sw_ident"`           // "py-celery", "gelery"
	SwVer     string     `json:"sw_ver"`             // its version
	SwSys     string     `json:"sw_sys"`             // "Linux"
	Clock     int64      `json:"clock"`              // its logical clock
	Heard     time.Time  `json:"heard,omitzero"`     // when its last event came, by our clock
	Timestamp time.Time  `json:"timestamp,omitzero"` // when it was sent, by its own
	Drift     float64    `json:"drift"`              // seconds: how far the worker's clock was behind ours then, the way included; Celery warns from 16 s
	Counts    Counts     `json:"counts"`             // of its tasks' events
}

// workerRecord is a Worker in memory.
type workerRecord struct {
	hostname        string
	pid             int
	freq            time.Duration
	active          int64
	processed       int64
	loadavg         [3]float64
	ident, ver, sys string
	clock           int64
	heard           time.Time
	timestamp, gone int64 // microseconds since 1970, by its clock; gone: of its worker-offline, 0 for none
	told            int64 // timestamp of the last event of its own
	counts          Counts
}

// overtaken tells whether an event comes behind another one of the worker that was sent later; times in microseconds. None
// hides what comes for longer than the worker may be silent.
func (w *workerRecord) overtaken(at, by int64) bool {
	return at < by && by-at <= min(expireWindow*w.freq, maxOvertaken).Microseconds()
}

// hears takes in that an event of the worker came, its own or a task's. One that was sent before it went is no sign of life.
func (w *workerRecord) hears(e *protocol.Event, now time.Time) {
	at := micros(e.Timestamp)
	if w.gone > 0 && (at == w.gone || w.overtaken(at, w.gone)) {
		return
	}
	w.gone = 0
	w.heard = now
	if !w.overtaken(at, w.timestamp) {
		w.timestamp = at
	}
	w.clock = max(w.clock, e.Clock)
}

// merge takes in an event of the worker. One that was overtaken by another changes nothing.
func (w *workerRecord) merge(s *State, e *protocol.Event, now time.Time) {
	at := micros(e.Timestamp)
	if e.Type == protocol.WorkerOffline {
		w.heard = now
		if !w.overtaken(at, w.told) {
			w.gone, w.told = max(at, 1), at
		}
		return
	}
	w.hears(e, now)
	if w.overtaken(at, w.told) {
		return
	}
	w.told = at
	if e.PID != 0 {
		w.pid = e.PID
	}
	for i := range e.Fields {
		f := &e.Fields[i]
		switch f.Name {
		case "freq":
			if x, ok := numberValue(f.Value); ok && x > 0 {
				w.freq = time.Duration(min(x, maxFreq.Seconds()) * float64(time.Second))
			}
		case "active":
			w.active = wholeValue(f.Value)
		case "processed":
			if n, ok := f.Value.(int64); ok && n >= 0 {
				w.processed = n
			}
		case "loadavg":
			list, _ := f.Value.([]any)
			for i := range min(len(list), len(w.loadavg)) {
				w.loadavg[i], _ = numberValue(list[i])
			}
		case "sw_ident":
			s.text(&w.ident, f.Value)
		case "sw_ver":
			s.text(&w.ver, f.Value)
		case "sw_sys":
			s.text(&w.sys, f.Value)
		}
	}
}

// alive tells whether the worker is believed to be there.
func (w *workerRecord) alive(now time.Time) bool {
	return w.gone == 0 && !w.heard.IsZero() && now.Sub(w.heard) < expireWindow*w.freq
}

// worker is the record as the caller gets it.
func (w *workerRecord) worker(now time.Time) Worker {
	out := Worker{Hostname: w.hostname, Alive: w.alive(now), Offline: w.gone > 0, PID: w.pid, Freq: w.freq.Seconds(), Active: w.active, Processed: w.processed,
		LoadAvg: w.loadavg, SwIdent: w.ident, SwVer: w.ver, SwSys: w.sys, Clock: w.clock, Heard: w.heard, Timestamp: moment(w.timestamp),
		Counts: w.counts}
	if w.timestamp > 0 && !w.heard.IsZero() {
		out.Drift = w.heard.Sub(moment(w.timestamp)).Seconds()
	}
	return out
}
