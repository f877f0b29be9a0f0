// Package healthserver answers over HTTP how a worker or a beat is: /healthz, /readyz and /metrics.
package healthserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gelery/gelery/internal/exposition"
)

// Subject is who is asked.
type Subject interface {
	// Live says why it does not live, "" if it does: /healthz.
	Live() string
	// Ready says why it does not do its work, "" if it does: /readyz.
	Ready() string
	// Metrics are in Prometheus's text format.
	Metrics() []byte
}

// Server answers for a subject; before there is one, it lives, is not ready and has no metrics, because the broker is not there yet.
type Server struct {
	listener net.Listener
	server   *http.Server
	served   chan struct{} // closed when nobody is answered any more
	of       atomic.Pointer[Subject]
}

// Address completes an address: a port alone, with or without a colon, is one of the loopback interface. "" stays so.
func Address(addr string) (string, error) {
	if addr == "" {
		return "", nil
	}
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	host, port, err := net.SplitHostPort(addr)
	if n, bad := strconv.Atoi(port); err != nil || bad != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("%q is no address; expected a port, or host:port", addr)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// absent is why nothing is told of a subject that is not there.
const absent = "the broker is not there yet"

// Listen answers at an address as [Address] takes it, until Close.
func Listen(ctx context.Context, addr string) (*Server, error) {
	addr, err := Address(addr)
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, served: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(rw http.ResponseWriter, _ *http.Request) {
		reason := ""
		if of := s.of.Load(); of != nil {
			reason = (*of).Live()
		}
		answer(rw, reason)
	})
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) {
		reason := absent
		if of := s.of.Load(); of != nil {
			reason = (*of).Ready()
		}
		answer(rw, reason)
	})
	mux.HandleFunc("GET /metrics", func(rw http.ResponseWriter, _ *http.Request) {
		if of := s.of.Load(); of != nil {
			rw.Header().Set("Content-Type", exposition.ContentType)
			_, _ = rw.Write((*of).Metrics())
		} else {
			answer(rw, absent)
		}
	})
	s.server = &http.Server{Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second,
		MaxHeaderBytes: 8 << 10}
	go func() {
		defer close(s.served)
		_ = s.server.Serve(l)
	}()
	return s, nil
}

// answer writes 200, or 503 with the reason.
func answer(rw http.ResponseWriter, reason string) {
	rw.Header().Set("Content-Type", "application/json")
	body := map[string]string{"status": "ok"}
	if reason != "" {
		rw.WriteHeader(http.StatusServiceUnavailable)
		body = map[string]string{"status": "unavailable", "reason": reason}
	}
	_ = json.NewEncoder(rw).Encode(body)
}

// Tell answers for the subject from now on.
func (s *Server) Tell(of Subject) { s.of.Store(&of) }

// Addr is where it listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends it. It may be called more than once.
func (s *Server) Close() error {
	err := s.server.Close()
	<-s.served
	return err
}
