package rabbitmq

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/transport"
)

func TestExchanges(t *testing.T) {
	t.Parallel()
	tr := operator(t, testservice.RabbitMQ(t).URL, "")
	for _, x := range []transport.Exchange{{Name: "d"}, {Name: "d", Type: "direct"}, {Name: "t", Type: "topic", Transient: true},
		{Name: "f", Type: "fanout", AutoDelete: true}, {Name: "alt", Arguments: map[string]any{"alternate-exchange": "d"}}} {
		if err := tr.DeclareExchange(limited(t), x); err != nil {
			t.Errorf("%+v: %v", x, err)
		}
	}
	tests := []struct {
		x    transport.Exchange
		is   error
		text string
	}{
		{transport.Exchange{Name: "d", Type: "topic"}, transport.ErrMismatch, "inequivalent arg 'type'"},
		{transport.Exchange{Name: "d", Transient: true}, transport.ErrMismatch, "inequivalent arg 'durable'"},
		{transport.Exchange{Name: "alt"}, transport.ErrMismatch, "alternate-exchange"},
		{transport.Exchange{Name: "x", Type: "bogus"}, nil, `type "bogus" is unknown`},
		{transport.Exchange{Name: "amq.mine"}, nil, "the broker's own"},
		{transport.Exchange{}, nil, "the broker's own"},
		{transport.Exchange{Name: "x", Arguments: map[string]any{"k": complex(1, 1)}}, nil, `argument "k"`},
	}
	for _, tt := range tests {
		err := tr.DeclareExchange(limited(t), tt.x)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%+v: %v; want %v, %s", tt.x, err, tt.is, tt.text)
		}
	}
	for _, name := range []string{"d", "none"} {
		if err := tr.DeleteExchange(limited(t), name, false); err != nil {
			t.Errorf("delete %s: %v", name, err)
		}
	}
}

// TestBindings: a binding routes until it is undone, and keeps its exchange in use.
func TestBindings(t *testing.T) {
	t.Parallel()
	tr := operator(t, testservice.RabbitMQ(t).URL, "")
	mustDeclare(t, tr, transport.Queue{Name: "q", Unbound: true})
	if err := tr.DeclareExchange(limited(t), transport.Exchange{Name: "x", Type: "topic"}); err != nil {
		t.Fatal(err)
	}
	b := transport.Binding{Exchange: "x", ExchangeType: "topic", RoutingKey: "a.#"}
	routed := func(wantErr error) {
		t.Helper()
		err := tr.Publish(limited(t), []transport.Publication{{Message: taskMessage("m"), Exchange: "x", RoutingKey: "a.b"}})
		if !errors.Is(err, wantErr) {
			t.Errorf("publish: %v, want %v", err, wantErr)
		}
	}
	routed(transport.ErrNoRoute)
	for range 2 {
		if err := tr.Bind(limited(t), "q", b); err != nil {
			t.Fatal(err)
		}
	}
	routed(nil)
	if err := tr.DeleteExchange(limited(t), "x", true); err == nil || errors.Is(err, transport.ErrMismatch) || !strings.Contains(err.Error(), `exchange "x" is in use`) {
		t.Errorf("delete what is in use: %v", err)
	}
	for range 2 {
		if err := tr.Unbind(limited(t), "q", b); err != nil {
			t.Fatal(err)
		}
	}
	routed(transport.ErrNoRoute)
	if err := tr.DeleteExchange(limited(t), "x", true); err != nil {
		t.Error(err)
	}
	for _, err := range []error{tr.Bind(limited(t), "none", b), tr.Bind(limited(t), "q", b)} {
		if !errors.Is(err, errNotFound) || !strings.Contains(err.Error(), `exchange "x", routing key "a.#"`) {
			t.Errorf("bind what does not exist: %v", err)
		}
	}
}

func TestDeleteQueue(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	for name, management := range map[string]string{"management": s.ManagementURL, "AMQP alone": ""} {
		t.Run(name, func(t *testing.T) {
			tr := operator(t, s.URL, management)
			mustDeclare(t, tr, transport.Queue{Name: "q"}, transport.Queue{Name: "quorum", Arguments: map[string]any{"x-queue-type": "quorum"}})
			mustSend(t, tr, "q", "1", 0)
			mustSend(t, tr, "q", "2", 0)
			c, err := tr.Consume(limited(t), transport.ConsumeOptions{Queues: []transport.Queue{{Name: "q"}}, Prefetch: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := c.Close(limited(t)); err != nil {
					t.Error(err)
				}
			}()
			refuse := func(queue string, ifUnused, ifEmpty bool, want string) {
				t.Helper()
				n, err := tr.DeleteQueue(limited(t), queue, ifUnused, ifEmpty)
				if n != 0 || err == nil || errors.Is(err, transport.ErrMismatch) || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, ifUnused %v, ifEmpty %v: %d, %v; want %s", queue, ifUnused, ifEmpty, n, err, want)
				}
			}
			refuse("q", true, false, `queue "q" is in use`)
			refuse("q", false, true, `queue "q" is not empty`)
			refuse("quorum", true, false, "cannot be deleted on the condition")
			refuse("quorum", false, true, "cannot be deleted on the condition")
			for _, want := range []struct {
				queue string
				n     int64
			}{{"quorum", 0}, {"none", 0}} {
				if n, err := tr.DeleteQueue(limited(t), want.queue, false, false); n != want.n || err != nil {
					t.Errorf("%s: %d, %v", want.queue, n, err)
				}
			}
		})
	}
	tr := operator(t, s.URL, "")
	mustDeclare(t, tr, transport.Queue{Name: "two"})
	mustSend(t, tr, "two", "1", 0)
	mustSend(t, tr, "two", "2", 0)
	if n, err := tr.DeleteQueue(limited(t), "two", true, false); n != 2 || err != nil {
		t.Errorf("an unused queue with two messages: %d, %v", n, err)
	}
}

func TestDenied(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	mustDeclare(t, operator(t, s.URL, ""), transport.Queue{Name: "q"})
	user := restricted(t, s, "^$", "")
	tr := operator(t, strings.Replace(s.URL, "guest:guest", user+":secret", 1), "")
	for name, f := range map[string]func(ctx context.Context) error{
		"declare exchange": func(ctx context.Context) error { return tr.DeclareExchange(ctx, transport.Exchange{Name: "x"}) },
		"delete exchange":  func(ctx context.Context) error { return tr.DeleteExchange(ctx, "x", false) },
		"bind": func(ctx context.Context) error {
			return tr.Bind(ctx, "q", transport.Binding{Exchange: "amq.direct", RoutingKey: "k"})
		},
		"unbind": func(ctx context.Context) error {
			return tr.Unbind(ctx, "q", transport.Binding{Exchange: "amq.direct", RoutingKey: "k"})
		},
		"purge":  func(ctx context.Context) error { _, err := tr.Purge(ctx, "q"); return err },
		"delete": func(ctx context.Context) error { _, err := tr.DeleteQueue(ctx, "q", false, false); return err },
	} {
		if err := f(limited(t)); !errors.Is(err, transport.ErrDenied) || !strings.Contains(err.Error(), user) {
			t.Errorf("%s: %v; want ErrDenied and the user's name", name, err)
		}
	}
}
