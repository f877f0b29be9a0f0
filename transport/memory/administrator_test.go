package memory

import (
	"errors"
	"strings"
	"testing"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

func TestAdministrator(t *testing.T) {
	t.Parallel()
	tr, err := open(t.Context(), "memory://"+t.Name(), transport.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, ctx := tr.(memoryTransport), t.Context()
	routes := func() bool {
		t.Helper()
		err := a.Publish(ctx, []transport.Publication{{Message: new(protocol.Message), Exchange: "x", RoutingKey: "a.b"}})
		if err != nil && !errors.Is(err, transport.ErrNoRoute) {
			t.Fatal(err)
		}
		return err == nil
	}
	topic := transport.Binding{Exchange: "x", ExchangeType: "topic", RoutingKey: "a.#"}
	if err := a.DeclareExchange(ctx, transport.Exchange{Name: "x", Type: "topic"}); err != nil || routes() {
		t.Errorf("an exchange without a binding: %v", err)
	}
	if err := a.Bind(ctx, "q", topic); err != nil || !routes() {
		t.Errorf("a bound queue: %v", err)
	}
	if err := a.DeleteExchange(ctx, "x", true); err == nil || !routes() {
		t.Errorf("an exchange in use is deleted: %v", err)
	}
	if err := a.Unbind(ctx, "q", transport.Binding{Exchange: "x", RoutingKey: "a.#"}); err != nil || routes() {
		t.Errorf("unbind: %v", err)
	}
	if err := a.Bind(ctx, "q", topic); err != nil {
		t.Fatal(err)
	}
	if n, err := a.DeleteQueue(ctx, "q", false, true); n != 0 || err == nil || !strings.Contains(err.Error(), "2 messages wait") {
		t.Errorf("a queue that is not empty: %d, %v", n, err)
	}
	if n, err := a.DeleteQueue(ctx, "q", true, false); n != 0 || err == nil {
		t.Errorf("an unused queue: %d, %v", n, err)
	}
	if n, err := a.DeleteQueue(ctx, "q", false, false); n != 2 || err != nil || routes() {
		t.Errorf("delete: %d, %v; want 2 and no binding", n, err)
	}
	if names, err := a.Queues(ctx); len(names) != 0 || err != nil {
		t.Errorf("%q are left, %v", names, err)
	}
	if err := a.DeleteExchange(ctx, "x", true); err != nil {
		t.Error(err)
	}
	for _, err := range []error{a.DeclareExchange(ctx, transport.Exchange{Name: "x", Type: "headers"}), a.Bind(ctx, "q", transport.Binding{ExchangeType: "headers"})} {
		if err == nil || !strings.Contains(err.Error(), `type "headers" is not supported`) {
			t.Error(err)
		}
	}
}
