//go:build unix

package testservice

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/gelery/gelery/internal/redisserver"
)

// redisPatience bounds what a test asks of a Redis: a busy disk takes seconds.
const redisPatience = 30 * time.Second

// RedisServer is a running redis-server that a test may stop, kill, freeze and start again.
type RedisServer struct {
	URL  string // redis://127.0.0.1:port/0
	Addr string // 127.0.0.1:port

	t      testing.TB
	server *redisserver.Server
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
	return StartRedisIn(t, t.TempDir(), args...)
}

// StartRedisIn is StartRedis in a folder of the caller's.
func StartRedisIn(t testing.TB, dir string, args ...string) *RedisServer {
	t.Helper()
	return launch(t, redisserver.Config{Dir: dir, Args: args})
}

// StartSentinel starts a Redis Sentinel that watches a master by a name, decides alone (quorum 1) and takes it for dead
// after 500 ms. Its URL is sentinel://127.0.0.1:port/0.
func StartSentinel(t testing.TB, name string, master *RedisServer) *RedisServer {
	t.Helper()
	c := redisserver.Config{Dir: t.TempDir(), Args: []string{"--sentinel"}}
	c.File = filepath.Join(c.Dir, "sentinel.conf")
	host, port, err := net.SplitHostPort(master.Addr)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("sentinel monitor %[1]s %[2]s %[3]s 1\nsentinel down-after-milliseconds %[1]s 500\n"+
		"sentinel failover-timeout %[1]s 3000\n", name, host, port)
	if err := os.WriteFile(c.File, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := launch(t, c)
	s.URL = "sentinel://" + s.Addr + "/0"
	return s
}

// launch starts the server and has it killed when the test ends.
func launch(t testing.TB, c redisserver.Config) *RedisServer {
	t.Helper()
	c.Binary = Program(t, "REDIS_SERVER", "redis-server")
	server, err := c.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s := &RedisServer{URL: server.URL, Addr: server.Addr, t: t, server: server}
	t.Cleanup(s.Kill)
	return s
}

// Pid is the process id of the running server.
func (s *RedisServer) Pid() int { return s.server.Pid() }

// Stop ends the server in good order (SIGTERM) and waits for it.
func (s *RedisServer) Stop() { s.server.End(syscall.SIGTERM) }

// Kill ends the server at once (SIGKILL) and waits for it. A dead server is left alone. With appendfsync everysec what was
// answered in the last two seconds may be gone: see SyncAppendOnly.
func (s *RedisServer) Kill() { s.server.End(syscall.SIGKILL) }

// Restart starts a stopped or killed server again, or kills a running one first: same port, same folder.
func (s *RedisServer) Restart() {
	s.t.Helper()
	if err := s.server.Restart(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// SyncAppendOnly has the server write its append-only file before it answers (appendfsync always), from now to its next start.
// With appendfsync everysec it keeps what it should write in its own memory for up to two seconds while the last fsync is
// under way, which on a busy disk takes that long, and answers all the same; a kill then loses it. A test that is about
// others than Redis calls this before Kill.
func (s *RedisServer) SyncAppendOnly() {
	s.t.Helper()
	options, err := goredis.ParseURL(s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	options.ReadTimeout = redisPatience
	client := goredis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.ConfigSet(context.Background(), "appendfsync", "always").Err(); err != nil {
		s.t.Fatalf("have Redis write its append-only file: %v", err)
	}
}

// Freeze stops the server's process (SIGSTOP): connections stay open and nothing answers.
func (s *RedisServer) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen server go on (SIGCONT).
func (s *RedisServer) Thaw() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.server.Signal(sig); err != nil {
		s.t.Errorf("signal redis-server: %v", err)
	}
}
