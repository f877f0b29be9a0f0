package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/transport"
)

// health asks the worker by HTTP and returns the status and the reason.
func (s *site) health(path string) (int, string) {
	s.Helper()
	r, err := http.NewRequestWithContext(s.context(), http.MethodGet, "http://"+s.worker.health.server.Addr()+path, nil)
	if err != nil {
		s.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	var body map[string]string
	if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
		s.Fatal(err)
	}
	return answer.StatusCode, body["reason"]
}

func TestHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	began, release := s.holding()
	s.start(Config{HealthAddr: "0", Concurrency: 1})
	if addr := s.worker.health.server.Addr(); !strings.HasPrefix(addr, "127.0.0.1:") {
		t.Errorf("a port alone listens on %s", addr)
	}
	deadline := time.After(30 * time.Second)
	for code := 0; code != http.StatusOK; code, _ = s.health("/readyz") {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("never ready")
		}
	}
	if code, reason := s.health("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz is %d: %s", code, reason)
	}
	s.send("hold")
	await(t, began, "the task")
	s.stop()
	await(t, s.worker.stopping.Done(), "the stop")
	if code, reason := s.health("/readyz"); code != http.StatusServiceUnavailable || reason != "the worker stops" {
		t.Errorf("/readyz of a worker that stops is %d: %s", code, reason)
	}
	if code, reason := s.health("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz of a worker that stops is %d: %s", code, reason)
	}
	close(release)
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

// A backend that answers all but the storing stands for any actor that is stuck.
func TestHealthOfAWedge(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stuck := &away{Backend: s.client.Backend()}
	client, err := task.NewClient(s.client.Transport(), stuck, task.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.client = client
	s.start(Config{Concurrency: 1})
	h := &health{w: s.worker, wedge: time.Millisecond}
	h.ask(s.context())
	if reason := h.Live(); reason != "" {
		t.Errorf("before: %s", reason)
	}
	stuck.on.Store(true)
	s.send("tasks.add", 1, 2)
	deadline := time.After(30 * time.Second)
	for s.worker.pulses.store.busy() <= h.wedge {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			t.Fatal("nothing is stored")
		}
	}
	if reason := h.Live(); !strings.Contains(reason, "storing results is stuck") {
		t.Errorf("a wedge: %q", reason)
	}
	// The same is right while the backend is away.
	h.backend.Store(moment() - int64(time.Hour))
	if reason := h.Live(); reason != "" {
		t.Errorf("while the backend is away: %s", reason)
	}
	h.broker.Store(0)
	if reason := h.Ready(); reason != "the broker does not answer" {
		t.Errorf("ready without a broker: %q", reason)
	}
	s.worker.Terminate()
	_ = s.end()
}

// TestReady: a worker that receives nothing is not ready, whatever the reason.
func TestReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		stuck := &away{Backend: s.client.Backend()}
		client, err := task.NewClient(s.client.Transport(), stuck, task.Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			t.Fatal(err)
		}
		s.client = client
		s.start(Config{Concurrency: 1, PrefetchMultiplier: 2})
		h := &health{w: s.worker, wedge: defaultWedge}
		ready := func(want string) {
			t.Helper()
			h.ask(s.context())
			if reason := h.Ready(); !strings.HasPrefix(reason, want) || want == "" && reason != "" {
				t.Errorf("not ready because of %q; expected %q", reason, want)
			}
		}
		after(time.Hour) // a quiet one
		ready("")
		consumer := s.worker.consumer
		s.worker.consumer = detached{consumer}
		ready(`nothing is received from queue "celery": gone`)
		s.worker.consumer = consumer
		if err := s.worker.CancelQueue(s.context(), "celery"); err != nil {
			t.Fatal(err)
		}
		ready("the worker receives from no queue")
		if err := s.worker.AddQueue(s.context(), "celery"); err != nil {
			t.Fatal(err)
		}
		ready("")
		stuck.on.Store(true)
		s.sendMany(9, "tasks.add", 1, 2)
		after(time.Second)
		ready("")
		after(answerAge)
		ready("nothing more is received for 16s, though slots are free")
		s.worker.Terminate()
		_ = s.end()
	})
}

// detached is a consumer that has lost a queue.
type detached struct{ transport.Consumer }

func (detached) Attached() error { return errors.New(`queue "celery": gone`) }

func TestHealthAddress(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.start(Config{HealthAddr: "0"})
	w, err := New(s.client, NewMux(), Config{HealthAddr: s.worker.health.server.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.Run(ctx); err == nil || !strings.Contains(err.Error(), "HealthAddr") {
		t.Errorf("an address that is taken: %v", err)
	}
}
