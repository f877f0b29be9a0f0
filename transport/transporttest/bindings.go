package transporttest

import (
	"slices"
	"testing"

	"github.com/gelery/gelery/transport"
)

// testBindingList is about who can tell what is bound to what.
func testBindingList(t *testing.T, b *bench) {
	lister, can := b.transport.(transport.BindingLister)
	if !can {
		t.Skip("this broker's driver lists no bindings")
	}
	q := b.queue("q")
	q.Exchange, q.ExchangeType, q.RoutingKey = "x", "topic", "a.#"
	q.Bindings = []transport.Binding{{Exchange: "y", RoutingKey: "k"}}
	b.declare(q, b.queue("r"))
	all, err := lister.Bindings(b.context())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []transport.BoundQueue{{Queue: "q", Exchange: "x", RoutingKey: "a.#"}, {Queue: "q", Exchange: "y", RoutingKey: "k"},
		{Queue: "r", Exchange: "r", RoutingKey: "r"}} {
		if !slices.Contains(all, want) {
			t.Errorf("%+v is not among the bindings %+v", want, all)
		}
	}
}
