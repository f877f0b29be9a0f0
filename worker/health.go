package worker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/internal/healthserver"
	"github.com/gelery/gelery/transport"
)

const (
	// probeInterval is how often broker and backend are asked, and how long an answer may take.
	probeInterval = 5 * time.Second
	// answerAge is how old the last answer may be of a broker or backend that counts as there.
	answerAge = 3 * probeInterval
	// defaultWedge is how long an actor may be busy with one thing while everybody answers whom it could wait for.
	defaultWedge = time.Minute
)

// epoch is what moments are counted from: by the monotonic clock, since the wall clock may be set.
var epoch = time.Now()

// moment is now, as nanoseconds since the epoch.
func moment() int64 { return int64(time.Since(epoch)) + 1 } // 0 means never

// probeID is the id of a task that there is not, for asking the backend.
const probeID = "gelery-health"

// pulse tells since when an actor is busy with one thing.
type pulse struct{ since atomic.Int64 } // a moment; 0: it waits for work

func (p *pulse) begin() { p.since.Store(moment()) }
func (p *pulse) end()   { p.since.Store(0) }

// busy is for how long.
func (p *pulse) busy() time.Duration {
	if since := p.since.Load(); since != 0 {
		return time.Duration(moment() - since)
	}
	return 0
}

// pulses are those of the actors that every task needs. Room is who receives as well, while nothing more may be held.
type pulses struct{ receive, room, store, settle pulse }

// HealthServer answers over HTTP how a worker is, also before there is one: until the worker that has it as Config.Health
// runs, /healthz is 200, and /readyz and /metrics are 503 because the broker is not there yet.
type HealthServer struct{ server *healthserver.Server }

// health is what a worker tells of itself: /healthz, whether it lives, and /readyz, whether it receives.
type health struct {
	w      *Worker
	server *HealthServer
	wedge  time.Duration
	// The moments at which broker and backend answered last.
	broker, backend atomic.Int64
}

// ListenHealth answers at an address as Config.HealthAddr has it, until Close or until the worker that takes it over has ended.
// It is for programs that wait for the broker before they can make a worker.
func ListenHealth(ctx context.Context, addr string) (*HealthServer, error) {
	s, err := healthserver.Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("worker config: HealthAddr: %w", err)
	}
	return &HealthServer{s}, nil
}

// Addr is where it listens.
func (s *HealthServer) Addr() string { return s.server.Addr() }

// Close ends it. It may be called more than once.
func (s *HealthServer) Close() error { return s.server.Close() }

// newHealth listens, unless somebody has begun to for this worker. The worker is asked from now on.
func newHealth(ctx context.Context, w *Worker) (*health, error) {
	server := w.config.Health
	if server == nil {
		var err error
		if server, err = ListenHealth(ctx, w.config.HealthAddr); err != nil {
			return nil, err
		}
	}
	h := &health{w: w, server: server, wedge: defaultWedge}
	server.server.Tell(h)
	w.log.Info("health is told", "address", server.Addr())
	return h, nil
}

// probe asks broker and backend until ctx is done.
func (h *health) probe(ctx context.Context) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		h.ask(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// ask notes who answers.
func (h *health) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeInterval)
	defer cancel()
	pinger, ok := h.w.client.Transport().(transport.Pinger)
	if !ok || pinger.Ping(ctx) == nil { // who cannot be asked passes for there
		h.broker.Store(moment())
	}
	if h.w.backend == nil {
		return
	}
	if _, err := h.w.backend.Get(ctx, probeID); err == nil {
		h.backend.Store(moment())
	}
}

// answers tells whether somebody has answered lately.
func answers(last *atomic.Int64) bool {
	at := last.Load()
	return at != 0 && time.Duration(moment()-at) < answerAge
}

// Live says why the worker does not live, "" if it does. An actor that is busy for very long is stuck, unless the broker or
// the backend is away: to wait for them is right, and another process would wait as well.
func (h *health) Live() string {
	broker := answers(&h.broker)
	everybody := broker && (h.w.backend == nil || answers(&h.backend))
	for _, a := range []struct {
		name   string
		pulse  *pulse
		served bool
	}{
		{"receiving", &h.w.pulses.receive, everybody && !h.w.allBusy()},
		{"storing results", &h.w.pulses.store, everybody},
		{"acknowledging", &h.w.pulses.settle, broker},
	} {
		if busy := a.pulse.busy(); busy > h.wedge && a.served {
			return fmt.Sprintf("%s is stuck for %v, though broker and result backend answer", a.name, busy.Round(time.Second))
		}
	}
	return ""
}

// allBusy tells whether all slots have a job: what is received has to wait then.
func (w *Worker) allBusy() bool {
	s := w.Stats()
	return s.Running >= s.Concurrency
}

// Ready says why the worker does not receive, "" if it does.
func (h *health) Ready() string {
	select {
	case <-h.w.consuming:
	default:
		return "the worker does not receive yet"
	}
	switch {
	case h.w.stopping.Err() != nil:
		return "the worker stops"
	case !answers(&h.broker):
		return "the broker does not answer"
	case len(h.w.consumed()) == 0:
		return "the worker receives from no queue"
	}
	if c, ok := h.w.consumer.(transport.Attached); ok {
		if err := c.Attached(); err != nil {
			return "nothing is received from " + err.Error()
		}
	}
	// Busy slots are a good reason to receive nothing.
	if h.w.allBusy() || len(h.w.ready) > 0 {
		return ""
	}
	if stuck := max(h.w.pulses.receive.busy(), h.w.pulses.room.busy()); stuck > answerAge {
		return fmt.Sprintf("nothing more is received for %v, though slots are free: what is held does not get done", stuck.Round(time.Second))
	}
	return ""
}

// Metrics are the worker's.
func (h *health) Metrics() []byte { return h.w.metrics.text() }

// close ends the server.
func (h *health) close() error { return h.server.Close() }
