// Package redisserver starts a redis-server of one's own: a free port of the loopback interface, a folder of its own, no
// snapshots. Programs that measure use it, and package testservice builds on it what tests do to a server.
package redisserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gelery/gelery/internal/tiedchild"
)

// ErrNotInstalled is what Start wraps when there is no redis-server on PATH.
var ErrNotInstalled = errors.New("no redis-server on PATH")

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
	tries        = 5 // somebody else may take the free port before Redis does
)

// Config says how a server is started. The zero value is a server with everything by default.
type Config struct {
	Binary string   // path of the program; "": redis-server on PATH
	Dir    string   // its folder, which stays; "": a temporary one, which Stop removes
	File   string   // a configuration file, which a Sentinel writes to; "": none, and no snapshots
	Args   []string // appended to its command line: "--appendonly", "yes"
	Wrap   []string // put before its command line, to pin it to a core for example: "taskset", "-c", "0"
}

// Server is a redis-server. It dies with the process that started it, where the system can arrange that.
type Server struct {
	Addr string // 127.0.0.1:port
	URL  string // redis://127.0.0.1:port/0

	config    Config
	temporary bool // Dir is ours to remove

	mu      sync.Mutex
	process *os.Process     // nil: it does not run
	exited  <-chan struct{} // closed when process is gone
}

// Start starts a server with everything by default and waits until it answers. Wrap is Config.Wrap.
func Start(ctx context.Context, wrap ...string) (*Server, error) {
	return Config{Wrap: wrap}.Start(ctx)
}

// Start starts a server and waits until it answers.
func (c Config) Start(ctx context.Context) (_ *Server, err error) {
	if c.Binary == "" {
		if c.Binary, err = exec.LookPath("redis-server"); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotInstalled, err)
		}
	}
	s := &Server{temporary: c.Dir == ""}
	if s.temporary {
		if c.Dir, err = os.MkdirTemp("", "gelery-redis-"); err != nil {
			return nil, err
		}
	}
	s.config = c
	for range tries {
		if s.Addr, err = freeAddr(ctx); err != nil {
			break
		}
		s.URL = "redis://" + s.Addr + "/0"
		if err = s.start(ctx); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(err, s.Stop())
}

func (s *Server) start(ctx context.Context) error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	args := append(s.config.Wrap[:len(s.config.Wrap):len(s.config.Wrap)], s.config.Binary)
	if s.config.File != "" {
		args = append(args, s.config.File)
	}
	args = append(args, "--bind", host, "--port", port, "--dir", s.config.Dir, "--daemonize", "no")
	if s.config.File == "" {
		args = append(args, "--save", "")
	}
	args = append(args, s.config.Args...)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...) // it ends by End or Stop
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	exited, err := tiedchild.Start(cmd)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.process, s.exited = cmd.Process, exited
	s.mu.Unlock()
	if err := s.waitReady(ctx, cmd.Process.Pid, exited); err != nil {
		s.End(syscall.SIGKILL)
		return fmt.Errorf("redis-server on %s: %w; it said: %s", s.Addr, err, strings.TrimSpace(output.String()))
	}
	return nil
}

// waitReady asks until this very process answers; another server on a stolen port has another process id.
func (s *Server) waitReady(ctx context.Context, pid int, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if got, err := processID(ctx, s.Addr); err == nil {
			if got != pid {
				return fmt.Errorf("process %d has the port, not %d", got, pid)
			}
			return nil
		}
		select {
		case <-exited:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Pid is the server's process id, 0 when it does not run.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// Signal sends a signal and waits for nothing.
func (s *Server) Signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return os.ErrProcessDone
	}
	return s.process.Signal(sig)
}

// End ends the server by a signal and waits for it; one that does not go in ten seconds, because it is stopped or stuck,
// is killed. A server that does not run is left alone. Its folder stays, and Restart may follow.
func (s *Server) End(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.process.Kill()
		<-s.exited
	}
	s.process = nil
}

// Restart starts an ended server again, or kills a running one first: same port, same folder.
func (s *Server) Restart(ctx context.Context) error {
	s.End(syscall.SIGKILL)
	return s.start(ctx)
}

// Stop ends the server in good order, waits for it, and removes a temporary folder. Stopping twice does nothing.
func (s *Server) Stop() error {
	s.End(syscall.SIGTERM)
	if !s.temporary {
		return nil
	}
	return os.RemoveAll(s.config.Dir)
}

func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String(), nil
}

// processID asks a server that has loaded its data for its process id.
func processID(ctx context.Context, addr string) (pid int, err error) {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte("INFO\r\nQUIT\r\n")); err != nil {
		return 0, err
	}
	err = fmt.Errorf("no process id in the answer of %s", addr)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch {
		case name == "process_id":
			pid, err = strconv.Atoi(value)
		case name == "loading" && value != "0":
			return 0, fmt.Errorf("%s is loading its data", addr)
		}
	}
	return pid, err
}
