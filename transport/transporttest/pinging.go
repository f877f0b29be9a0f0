package transporttest

import (
	"testing"

	"github.com/gelery/gelery/transport"
)

// testPing: a broker that is there answers, and a consumer that receives says so.
func testPing(t *testing.T, b *bench) {
	p, ok := b.transport.(transport.Pinger)
	if !ok {
		t.Fatal("it cannot be asked whether the broker answers")
	}
	if err := p.Ping(b.context()); err != nil {
		t.Error(err)
	}
	c := b.consume("q")
	if err := p.Ping(b.context()); err != nil {
		t.Errorf("beside a consumer: %v", err)
	}
	if a, ok := c.(transport.Attached); ok {
		if err := a.Attached(); err != nil {
			t.Error(err)
		}
	}
}
