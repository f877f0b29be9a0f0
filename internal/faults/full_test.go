//go:build unix

package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

// refusals sends until a time has passed, each call with a deadline of its own, and returns how many ended with an error
// that is another than want.
func (s *scene) refusals(during time.Duration, want error) (refused int) {
	s.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for end := time.After(during); ; {
		select {
		case <-ticker.C:
		case <-end:
			return refused
		}
		ctx, cancel := context.WithTimeout(s.Context(), 500*time.Millisecond)
		start := time.Now()
		if _, err := s.send(ctx, 1); err != nil {
			if refused++; !errors.Is(err, want) {
				s.Errorf("send: %v; expected %v", err, want)
			}
		}
		cancel()
		if took := time.Since(start); took > slack*time.Second {
			s.Errorf("a call with a deadline of 500 ms took %v", took)
		}
	}
}

// TestF35Maxmemory has Redis take nothing new for a while: workers drain it meanwhile, and senders are told.
func TestF35Maxmemory(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	w := s.worker()
	s.sendMany(200, 5)
	s.ran(slots)
	if err := s.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	refused := s.refusals(form(2*time.Second, 30*time.Second), transport.ErrBrokerFull)
	if refused == 0 {
		t.Error("nothing was refused")
	}
	ran := len(s.ledger.Counts(t))
	if err := s.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	end, grown := time.Now(), s.grown()
	s.sendMany(10, 1)
	back := s.resumed(grown, end, comeback)
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: fmt.Sprintf("maxmemory reached; %d tasks had begun and %d sends were refused meanwhile", ran, refused), faults: 1,
		recovery: back, limit: comeback})
	if ran < prefetch {
		t.Errorf("%d tasks have begun; what was held should at least be done", ran)
	}
}

// examined is what the doctor says of a subject.
func (s *scene) examined(subject string) (health transport.Health, said string) {
	s.Helper()
	findings, err := s.client.Transport().(transport.Examiner).Examine(deadlineOf(s.TB, recovery), nil)
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range findings {
		if f.Subject == subject {
			return f.Health, f.Detail + "; " + f.Advice
		}
	}
	return transport.Unknown, ""
}

// TestF36Eviction: a Redis that may throw away what it holds is told by the doctor.
func TestF36Eviction(t *testing.T) {
	t.Parallel()
	s := onRedis(t, testservice.Redis(t))
	if health, said := s.examined("memory"); health != transport.Healthy {
		t.Errorf("before the fault memory is %s: %s", health, said)
	}
	for name, value := range map[string]string{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"} {
		if err := s.rdb.ConfigSet(t.Context(), name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if health, said := s.examined("memory"); health != transport.Broken || !strings.Contains(said, "allkeys-lru") {
		t.Errorf("memory is %s: %s; expected an error that names the policy", health, said)
	}
	w := s.worker()
	s.sendMany(20, 1)
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: "eviction policy allkeys-lru, which `gelery doctor` tells as an error", faults: 1})
}

// TestF37DiskFull fills the disk that Redis writes its append-only file to. It refuses every write then, the renewal of
// leases too: what was held for longer than a lease runs again.
func TestF37DiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("gelery", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("a small disk cannot be mounted, which takes root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	server := testservice.StartRedisIn(t, dir, "--appendonly", "yes", "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
	s := onRedis(t, server.URL)
	w := s.worker()
	s.sendMany(100, 5)
	s.ran(slots)
	fill(t, filepath.Join(dir, "filler"))
	refused := s.refusals(form(3*time.Second, 20*time.Second), transport.ErrBrokerFull)
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if !w.alive() {
		t.Fatalf("the worker has ended: %s", w.log)
	}
	if err := os.Remove(filepath.Join(dir, "filler")); err != nil {
		t.Fatal(err)
	}
	end, grown := time.Now(), s.grown()
	s.await(comeback, "messages are taken again", func() bool {
		_, err := s.send(deadlineOf(t, time.Second), 1)
		return err == nil
	})
	back := s.resumed(grown, end, comeback)
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: fmt.Sprintf("disk of the append-only file full; %d sends were refused meanwhile", refused), faults: 1, extra: prefetch, recovery: back, limit: comeback})
}

// fill writes a file until there is no more room.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; {
		if n, err := f.Write(make([]byte, size)); err != nil || n < size {
			size /= 2 // the last bytes count, too
		}
	}
}

// TestF38Loading has Redis load a large file at its start.
func TestF38Loading(t *testing.T) {
	t.Parallel()
	server := testservice.StartRedis(t, "--appendonly", "yes", "--appendfsync", "no", "--aof-use-rdb-preamble", "no", "--key-load-delay", "5")
	s := onRedis(t, server.URL)
	w := s.worker()
	s.sendMany(200, 20)
	value := strings.Repeat("x", 100<<10)
	megabytes := form(20, 200)
	for i := range 10 * megabytes {
		if err := s.rdb.Set(t.Context(), fmt.Sprint("ballast", i), value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	server.Kill()
	stop := s.stream(4, 20, milliseconds(5))
	grown := s.grown()
	start := time.Now()
	server.Restart()
	back := s.resumed(grown, start, recovery)
	stop()
	s.settled(recovery)
	stopped(t, w)
	s.account(outcome{what: fmt.Sprintf("broker loads %d MB at its start", megabytes), faults: 1, extra: prefetch, recovery: back, limit: recovery})
}
