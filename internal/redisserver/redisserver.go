// Package redisserver starts a redis-server of one's own: a free port of the loopback interface, a folder of its own, no
// snapshots. Programs that measure use it; tests have package testservice, which can also stop and freeze one.
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
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNotInstalled is what Start wraps when there is no redis-server on PATH.
var ErrNotInstalled = errors.New("no redis-server on PATH")

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 10 * time.Second
	tries        = 5 // somebody else may take the free port before Redis does
)

// Server is a running redis-server. It dies with the process that started it, where the system can arrange that.
type Server struct {
	Addr string // 127.0.0.1:port
	URL  string // redis://127.0.0.1:port/0

	dir     string
	process *os.Process
	exited  chan struct{} // closed when process is gone
	stop    sync.Once
}

// Start starts a server and waits until it answers. Wrap is put before its command line, to pin it to a core for
// example: "taskset", "-c", "0".
func Start(ctx context.Context, wrap ...string) (*Server, error) {
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotInstalled, err)
	}
	dir, err := os.MkdirTemp("", "gelery-redis-")
	if err != nil {
		return nil, err
	}
	for range tries {
		s := &Server{dir: dir}
		if err = s.start(ctx, append(wrap[:len(wrap):len(wrap)], binary)); err == nil {
			return s, nil
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

func (s *Server) start(ctx context.Context, command []string) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.URL = "redis://" + s.Addr + "/0"
	args := append(command, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", s.dir, "--save", "",
		"--appendonly", "no", "--daemonize", "no")
	cmd := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...) // it ends by Stop
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = dieWithParent()
	started := make(chan error)
	s.exited = make(chan struct{})
	go func() {
		// The kernel ties a child to the thread that made it, so this thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.process = cmd.Process
	if err := s.waitReady(ctx); err != nil {
		s.end()
		return fmt.Errorf("redis-server on %s: %w; it said: %s", s.Addr, err, strings.TrimSpace(output.String()))
	}
	return nil
}

// waitReady asks until this very process answers; another server on a stolen port has another process id.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if pid, err := processID(ctx, s.Addr); err == nil {
			if pid != s.process.Pid {
				return fmt.Errorf("process %d has the port, not %d", pid, s.process.Pid)
			}
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// Pid is the server's process id.
func (s *Server) Pid() int { return s.process.Pid }

// Stop ends the server, waits for it, and removes its folder. Stopping twice does nothing.
func (s *Server) Stop() (err error) {
	s.stop.Do(func() {
		s.end()
		err = os.RemoveAll(s.dir)
	})
	return err
}

func (s *Server) end() {
	_ = s.process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
	case <-time.After(stopTimeout):
		_ = s.process.Kill()
		<-s.exited
	}
}

func freePort(ctx context.Context) (int, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func processID(ctx context.Context, addr string) (int, error) {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte("INFO server\r\nQUIT\r\n")); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "process_id:"); ok {
			return strconv.Atoi(text)
		}
	}
	return 0, fmt.Errorf("no process id in the answer of %s", addr)
}
