//go:build unix

package testservice

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends a command over a new connection and returns the first line of the answer.
func ask(t *testing.T, addr, command string) (string, error) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	return askOver(t, conn, command)
}

func askOver(t *testing.T, conn net.Conn, command string) (string, error) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(command)
	request := fmt.Sprintf("*%d\r\n", len(words))
	for _, w := range words {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return "", err
	}
	s, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(s), err
}

func TestRedisIsOnesOwn(t *testing.T) {
	t.Parallel()
	for _, start := range []func(testing.TB) string{Redis, Redis, Miniredis} {
		u, err := url.Parse(start(t))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ask(t, u.Host, "INCR here"); got != ":1" || err != nil {
			t.Errorf("%s: got %q, %v", u, got, err)
		}
	}
}

func TestRedisRestartKeepsFolder(t *testing.T) {
	t.Parallel()
	s := StartRedis(t, "--appendonly", "yes", "--appendfsync", "everysec")
	if got, err := ask(t, s.Addr, "SET k v"); got != "+OK" || err != nil {
		t.Fatal(got, err)
	}
	s.SyncAppendOnly()
	before := s.Pid()
	s.Restart() // by SIGKILL
	if s.Pid() == before {
		t.Error("still the same process")
	}
	if got, err := ask(t, s.Addr, "STRLEN k"); got != ":1" || err != nil {
		t.Errorf("after the restart: %q, %v", got, err)
	}
	s.Stop()
	if got, err := ask(t, s.Addr, "PING"); err == nil {
		t.Errorf("a stopped server says %q", got)
	}
	s.Kill() // of the dead: nothing happens
}

func TestRedisEndsWithTheTest(t *testing.T) {
	t.Parallel()
	pid := 0
	t.Run("inner", func(t *testing.T) {
		s := StartRedis(t)
		s.Freeze()
		pid = s.Pid()
	})
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.Signal(0)); err == nil {
		t.Errorf("process %d lives on", pid)
	}
}

func TestProxy(t *testing.T) {
	t.Parallel()
	s := StartRedis(t)
	p := NewProxy(t, s.Addr)
	conn, err := net.Dial("tcp", p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if got, err := askOver(t, conn, "PING"); got != "+PONG" || err != nil {
		t.Fatal(got, err)
	}

	p.Pause()
	answered := make(chan string, 1)
	go func() {
		got, err := ask(t, p.Addr, "PING")
		if err != nil {
			got = err.Error()
		}
		answered <- got
	}()
	select {
	case got := <-answered:
		t.Errorf("paused and answered %q", got)
	case <-time.After(30 * time.Millisecond): // absence needs a time
	}
	p.Resume()
	if got := <-answered; got != "+PONG" {
		t.Errorf("resumed and answered %q", got)
	}

	p.DropReplies(1)
	if got, err := ask(t, p.Addr, "INCR n"); err == nil {
		t.Errorf("the reply should be lost, got %q", got)
	}
	if got, err := ask(t, p.Addr, "INCR n"); got != ":2" || err != nil {
		t.Errorf("the request should have been carried out: %q, %v", got, err)
	}

	p.Cut()
	if got, err := askOver(t, conn, "PING"); err == nil {
		t.Errorf("cut and answered %q", got)
	}
	p.Down()
	if got, err := ask(t, p.Addr, "PING"); err == nil {
		t.Errorf("down and answered %q", got)
	}
	p.Up()
	if got, err := ask(t, p.Addr, "PING"); got != "+PONG" || err != nil {
		t.Errorf("up again: %q, %v", got, err)
	}
}

func BenchmarkStartRedis(b *testing.B) {
	for b.Loop() {
		StartRedis(b).Kill()
	}
}
