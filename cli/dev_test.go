package cli

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	goredis "github.com/redis/go-redis/v9"
)

// TestDev joins the development broker with another program, as its output invites to do.
func TestDev(t *testing.T) {
	t.Parallel()
	b := run{args: []string{"dev"}}.start(t)
	urls := b.output.waitFor(t, `(?s)broker:   (redis://127\.0\.0\.1:\d+/0)\nbackend:  (redis://127\.0\.0\.1:\d+/1)\n.*python3 -c`)
	got := command(t, 0, "-b", urls[1], "--result-backend", urls[2], "call", "dev.add", "-a", "[2, 3]", "--wait", "--timeout", "20")
	if got != "5\n" {
		t.Errorf("dev.add(2, 3) is %q", got)
	}
	b.stop()
	if code := b.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	addr := urls[1][len("redis://") : len(urls[1])-len("/0")]
	if conn, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		_ = conn.Close()
		t.Error("the broker outlives the command")
	}
}

// TestAge wants keys of the development broker to expire by themselves.
func TestAge(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr()})
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "k", "v", 500*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), testLimit)
	defer cancel()
	aged := make(chan struct{})
	go func() {
		defer close(aged)
		age(ctx, server)
	}()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for server.Exists("k") {
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatal("the key is still there")
		}
	}
	cancel()
	<-aged
}
