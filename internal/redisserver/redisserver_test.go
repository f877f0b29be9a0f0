package redisserver

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

func TestStartAndStop(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := Start(ctx)
	if errors.Is(err, ErrNotInstalled) && os.Getenv("GELERY_TEST_SERVERS") != "required" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := processID(ctx, s.Addr); err != nil || pid != s.Pid() {
		t.Errorf("process %d answers (%v); expected %d", pid, err, s.Pid())
	}
	for range 2 {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}
	if c, err := net.DialTimeout("tcp", s.Addr, time.Second); err == nil {
		_ = c.Close()
		t.Error("it answers after Stop")
	}
	if _, err := os.Stat(s.config.Dir); !os.IsNotExist(err) {
		t.Errorf("its folder is still there: %v", err)
	}
}

func TestStartOfNothing(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), "/nonexistent/wrapper"); err == nil {
		t.Error("no error")
	}
}
