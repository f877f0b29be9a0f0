package redis

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/gelery/gelery/transport"
)

func TestAdministrator(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb, tr := client(t, url), dial(t, url, nil)
		t.Cleanup(func() { _ = tr.Close(context.Background()) })
		ctx := deadline(t)
		members := func(exchange string) string {
			m := rdb.SMembers(ctx, "_kombu.binding."+exchange).Val()
			slices.Sort(m)
			return strings.ReplaceAll(strings.Join(m, " "), defaultSep, "|")
		}
		for _, b := range []struct {
			queue string
			transport.Binding
		}{
			{"q", transport.Binding{Exchange: "d", RoutingKey: "k"}},
			{"q", transport.Binding{Exchange: "x", ExchangeType: "topic", RoutingKey: "a.*"}},
			{"p", transport.Binding{Exchange: "x", ExchangeType: "topic", RoutingKey: "#"}},
		} {
			if err := tr.Bind(ctx, b.queue, b.Binding); err != nil {
				t.Fatal(err)
			}
		}
		if got := members("x"); got != `#|^.*?$|p a.*|^a\..*?[^\.]$|q` {
			t.Errorf("topic bindings are %s", got)
		}
		for range 2 {
			if err := tr.Unbind(ctx, "p", transport.Binding{Exchange: "x", RoutingKey: "#"}); err != nil {
				t.Fatal(err)
			}
		}
		publish(t, tr, publication("q", "a", 0), publication("q", "b", 9))
		if err := tr.DeleteExchange(ctx, "x", true); err == nil || !strings.Contains(err.Error(), `exchange "x" is in use`) {
			t.Errorf("delete an exchange in use: %v", err)
		}
		if n, err := tr.DeleteQueue(ctx, "q", false, true); n != 0 || err == nil || !strings.Contains(err.Error(), "2 messages wait") {
			t.Errorf("delete a queue that is not empty: %d, %v", n, err)
		}
		if n, err := tr.DeleteQueue(ctx, "q", true, false); n != 0 || err == nil {
			t.Errorf("delete an unused queue: %d, %v", n, err)
		}
		if members("d") == "" || members("x") == "" {
			t.Error("a refused deletion has removed bindings")
		}
		if n, err := tr.DeleteQueue(ctx, "q", false, false); n != 2 || err != nil {
			t.Errorf("delete: %d, %v; want 2", n, err)
		}
		for _, key := range []string{"q", "q" + defaultSep + "9", "_kombu.binding.d", "_kombu.binding.x"} {
			if rdb.Exists(ctx, key).Val() != 0 {
				t.Errorf("%q is still there", key)
			}
		}
		if err := tr.DeleteExchange(ctx, "x", true); err != nil {
			t.Error(err)
		}
		if n, err := tr.DeleteQueue(ctx, "q", false, true); n != 0 || err != nil {
			t.Errorf("delete what is not there: %d, %v", n, err)
		}
	})
}

// TestDeclareAfterDelete: what this process has declared is declared again once it was deleted.
func TestDeclareAfterDelete(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb, tr := client(t, url), dial(t, url, nil)
		t.Cleanup(func() { _ = tr.Close(context.Background()) })
		ctx := deadline(t)
		for name, remove := range map[string]func() error{
			"exchange": func() error { return tr.DeleteExchange(ctx, "x", false) },
			"queue":    func() error { _, err := tr.DeleteQueue(ctx, "q", false, false); return err },
			"binding":  func() error { return tr.Unbind(ctx, "q", transport.Binding{Exchange: "x", RoutingKey: "q"}) },
		} {
			q := transport.Queue{Name: "q", Exchange: "x"}
			if err := tr.Declare(ctx, q); err != nil {
				t.Fatal(err)
			}
			if err := remove(); err != nil {
				t.Fatal(err)
			}
			if n := rdb.SCard(ctx, "_kombu.binding.x").Val(); n != 0 {
				t.Errorf("%s: %d bindings are left", name, n)
			}
			if err := tr.Declare(ctx, q); err != nil {
				t.Fatal(err)
			}
			if n := rdb.SCard(ctx, "_kombu.binding.x").Val(); n != 1 {
				t.Errorf("%s: it is not declared again", name)
			}
		}
	})
}

func TestAdministratorRefuses(t *testing.T) {
	t.Parallel()
	forEachServer(t, func(t *testing.T, url string) {
		rdb, tr := client(t, url), dial(t, url, nil)
		t.Cleanup(func() { _ = tr.Close(context.Background()) })
		ctx := deadline(t)
		for _, key := range []string{"_kombu.binding.text", "text"} {
			rdb.Set(ctx, key, "not ours", 0)
		}
		tests := []struct {
			name, want string
			err        error
		}{
			{"type of an exchange", `type "headers" is not supported`, tr.DeclareExchange(ctx, transport.Exchange{Name: "x", Type: "headers"})},
			{"type of a binding", `type "headers" is not supported`, tr.Bind(ctx, "q", transport.Binding{Exchange: "x", ExchangeType: "headers"})},
			{"separator", "separator", tr.Bind(ctx, "q", transport.Binding{Exchange: "x", RoutingKey: "a" + defaultSep})},
			{"bind", `key "_kombu.binding.text": WRONGTYPE`, tr.Bind(ctx, "q", transport.Binding{Exchange: "text"})},
			{"unbind", `key "_kombu.binding.text": WRONGTYPE`, tr.Unbind(ctx, "q", transport.Binding{Exchange: "text"})},
			{"delete exchange", `key "_kombu.binding.text": WRONGTYPE`, tr.DeleteExchange(ctx, "text", false)},
			{"delete queue", "WRONGTYPE", func() error { _, err := tr.DeleteQueue(ctx, "text", false, false); return err }()},
		}
		for _, tt := range tests {
			if tt.err == nil || !strings.Contains(tt.err.Error(), tt.want) {
				t.Errorf("%s: %v; want %s", tt.name, tt.err, tt.want)
			}
		}
		if err := tr.DeclareExchange(ctx, transport.Exchange{Name: "x"}); err != nil {
			t.Error(err)
		}
		if rdb.Get(ctx, "text").Val() != "not ours" || rdb.Get(ctx, "_kombu.binding.text").Val() != "not ours" {
			t.Error("a key of another type was removed")
		}
	})
}
