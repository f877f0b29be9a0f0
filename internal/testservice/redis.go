//go:build unix

package testservice

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a running redis-server that a test may stop, kill, freeze and start again.
type RedisServer struct {
	URL  string // redis://127.0.0.1:port/0
	Addr string // 127.0.0.1:port

	t      testing.TB
	binary string
	config string // of a Sentinel, which keeps its state there
	args   []string
	dir    string // kept over Restart, so an append-only file survives

	mu      sync.Mutex
	process *os.Process
	exited  chan struct{} // closed when process is gone
}

// Redis starts a redis-server without persistence for this test alone and returns its URL, redis://127.0.0.1:port/0.
// It takes some 15 ms, so sharing one is not worth the trouble. It is gone when the test ends.
func Redis(t testing.TB) string {
	t.Helper()
	return StartRedis(t).URL
}

// StartRedis starts a redis-server on a free port of the loopback interface, with a folder of its own and without
// snapshots. Args are appended to its command line ("--appendonly", "yes"). It is killed when the test ends, and by the
// kernel if the test process dies before.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	s := &RedisServer{t: t, args: args, dir: t.TempDir()}
	s.launch()
	return s
}

// StartSentinel starts a Redis Sentinel that watches a master by a name, decides alone (quorum 1) and takes it for dead
// after 500 ms. Its URL is sentinel://127.0.0.1:port/0.
func StartSentinel(t testing.TB, name string, master *RedisServer) *RedisServer {
	t.Helper()
	s := &RedisServer{t: t, args: []string{"--sentinel"}, dir: t.TempDir()}
	s.config = filepath.Join(s.dir, "sentinel.conf")
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 1\nsentinel down-after-milliseconds %[1]s 500\n"+
		"sentinel failover-timeout %[1]s 3000\n", name, host, port)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.launch()
	s.URL = "sentinel://" + s.Addr + "/0"
	return s
}

// launch starts the server on a free port and has it killed when the test ends.
func (s *RedisServer) launch() {
	s.t.Helper()
	s.binary = find(s.t, "REDIS_SERVER", "redis-server")
	s.t.Cleanup(s.Kill)
	var err error
	for range 5 { // somebody else may take the port before Redis does
		s.Addr = freeAddr(s.t)
		if err = s.start(); err == nil {
			s.URL = "redis://" + s.Addr + "/0"
			return
		}
	}
	s.t.Fatal(err)
}

// Pid is the process id of the running server.
func (s *RedisServer) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Pid
}

// Stop ends the server in good order (SIGTERM) and waits for it.
func (s *RedisServer) Stop() { s.end(syscall.SIGTERM) }

// Kill ends the server at once (SIGKILL) and waits for it. A dead server is left alone.
func (s *RedisServer) Kill() { s.end(syscall.SIGKILL) }

// Restart starts a stopped or killed server again, or kills a running one first: same port, same folder.
func (s *RedisServer) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.start(); err != nil {
		s.t.Fatal(err)
	}
}

// Freeze stops the server's process (SIGSTOP): connections stay open and nothing answers.
func (s *RedisServer) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on (SIGCONT).
func (s *RedisServer) Thaw() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.process.Signal(sig); err != nil {
		s.t.Errorf("signal redis-server %d: %v", s.process.Pid, err)
	}
}

func (s *RedisServer) end(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return
	}
	_ = s.process.Signal(sig)
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second): // frozen, or stuck in its shutdown
		_ = s.process.Kill()
		<-s.exited
	}
	s.process = nil
}

func (s *RedisServer) start() error {
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	args := []string{"--bind", host, "--port", port, "--dir", s.dir, "--daemonize", "no"}
	if s.config == "" {
		args = append(args, "--save", "")
	} else {
		args = append([]string{s.config}, args...)
	}
	cmd := exec.Command(s.binary, append(args, s.args...)...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = dieWithParent()

	started, exited := make(chan error), make(chan struct{})
	go func() {
		// The kernel ties a child to the thread that made it, so this thread stays until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(exited)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	s.mu.Lock()
	s.process, s.exited = cmd.Process, exited
	s.mu.Unlock()
	if err := s.waitReady(cmd.Process.Pid); err != nil {
		s.Kill()
		return fmt.Errorf("redis-server on %s: %w; it said:\n%s", s.Addr, err, output.String())
	}
	return nil
}

// waitReady asks until this very process answers; another server on a stolen port has another process id.
func (s *RedisServer) waitReady(pid int) error {
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		if got, err := processID(s.Addr); err == nil {
			if got != pid {
				return fmt.Errorf("process %d has the port, not %d", got, pid)
			}
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended at once")
		case <-deadline.C:
			return fmt.Errorf("it did not answer in 20 s")
		case <-tick.C:
		}
	}
}

// processID asks a server that has loaded its data for its process id.
func processID(addr string) (pid int, err error) {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
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

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
