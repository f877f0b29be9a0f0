package testservice

import (
	"net"
	"sync"
	"testing"
)

// Proxy stands between a client and a server and breaks the network on demand.
type Proxy struct {
	Addr string // where clients connect

	target   string
	listener net.Listener
	done     sync.WaitGroup

	mu     sync.Mutex
	wake   *sync.Cond // broadcast whenever one of the fields below changes
	conns  map[net.Conn]struct{}
	closed bool
	down   bool // connections are refused
	paused bool // nothing flows
	drop   int  // so many replies are swallowed
}

// NewProxy starts a proxy to target ("127.0.0.1:6379"). It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: l.Addr().String(), target: target, listener: l, conns: map[net.Conn]struct{}{}}
	p.wake = sync.NewCond(&p.mu)
	p.done.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Cut closes all connections. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
}

// Down closes all connections and every new one, until Up.
func (p *Proxy) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	p.cut()
}

// Up ends Down.
func (p *Proxy) Up() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// Pause lets nothing flow in either direction while the connections stay open: a half-open network.
func (p *Proxy) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
}

// Resume ends Pause; what was held back flows on.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
	p.wake.Broadcast()
}

// DropReplies swallows the next n pieces that servers send, each together with its connection: requests are carried
// out and the client never learns of it.
func (p *Proxy) DropReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = n
}

// Connections is the number of open client connections.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) / 2
}

func (p *Proxy) cut() {
	for c := range p.conns {
		_ = c.Close()
	}
	p.wake.Broadcast()
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.cut()
	p.mu.Unlock()
	p.done.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.done.Go(func() { p.serve(client) })
	}
}

func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	refuse := p.down || p.closed
	if !refuse {
		p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	}
	p.mu.Unlock()
	if refuse {
		_ = client.Close()
		_ = server.Close()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.pump(server, client, false) })
	both.Go(func() { p.pump(client, server, true) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

// pump copies from src to dst until one of them is closed, then closes both.
func (p *Proxy) pump(dst, src net.Conn, replies bool) {
	defer func() {
		_ = dst.Close()
		_ = src.Close()
		p.mu.Lock()
		p.wake.Broadcast()
		p.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil || !p.pass(replies) {
			return
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// pass waits while the proxy is paused and says whether the piece in hand may go on.
func (p *Proxy) pass(reply bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.paused && !p.closed && !p.down {
		p.wake.Wait()
	}
	if reply && p.drop > 0 {
		p.drop--
		return false
	}
	return true
}
