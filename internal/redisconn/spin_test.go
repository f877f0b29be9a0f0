//go:build unix

package redisconn

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// pair is a spinning connection and its other end.
func pair(t *testing.T) (spin, peer net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	peer = <-accepted
	spin = spinning(conn)
	t.Cleanup(func() { _, _ = spin.Close(), peer.Close() })
	if _, ok := spin.(*spinConn); !ok {
		t.Fatalf("%T does not spin", spin)
	}
	return spin, peer
}

func TestSpinReadsWhatIsThereAndWhatComes(t *testing.T) {
	t.Parallel()
	spin, peer := pair(t)
	buf := make([]byte, 8)
	for i := range 200 {
		late := i%2 == 1 // later than the spin lasts: the read sleeps
		go func() {
			if late {
				<-time.After(2 * spinFor)
			}
			_, _ = peer.Write([]byte("reply"))
		}()
		n, err := io.ReadFull(spin, buf[:5])
		if err != nil || string(buf[:n]) != "reply" {
			t.Fatalf("read %d: %q, %v", i, buf[:n], err)
		}
	}
}

func TestSpinEndsAsAnyReadDoes(t *testing.T) {
	t.Parallel()
	spin, peer := pair(t)
	buf := make([]byte, 8)
	if err := spin.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for range 3 { // spinning, asleep, and past it
		if _, err := spin.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read past the deadline: %v", err)
		}
	}
	if err := spin.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	_ = peer.Close()
	if _, err := spin.Read(buf); !errors.Is(err, io.EOF) {
		t.Errorf("read from a closed peer: %v", err)
	}
	_ = spin.Close()
	if _, err := spin.Read(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read from a closed connection: %v", err)
	}
}
