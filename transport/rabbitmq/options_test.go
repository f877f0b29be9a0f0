package rabbitmq

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/internal/testservice"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

func TestParse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		url     string
		options map[string]any
		want    endpoint // of the last node
		nodes   int
		secure  bool
	}{
		{url: "amqp://", want: endpoint{host: "localhost", port: 5672, user: "guest", password: "guest", vhost: "/"}},
		{url: "pyamqp://h", want: endpoint{host: "h", port: 5672, user: "guest", password: "guest", vhost: "/"}},
		{url: "amqp://h/", want: endpoint{host: "h", port: 5672, user: "guest", password: "guest", vhost: "/"}},
		{url: "amqp://h//", want: endpoint{host: "h", port: 5672, user: "guest", password: "guest", vhost: "/"}},
		{url: "amqp://h/%2f", want: endpoint{host: "h", port: 5672, user: "guest", password: "guest", vhost: "/"}},
		{url: "amqp://h/%2Fvh", want: endpoint{host: "h", port: 5672, user: "guest", password: "guest", vhost: "/vh"}},
		{url: "amqp://u:p%40w@h:7/vh", want: endpoint{host: "h", port: 7, user: "u", password: "p@w", vhost: "vh"}},
		{url: "amqp://u:p?w#x@h/vh", want: endpoint{host: "h", port: 5672, user: "u", password: "p?w#x", vhost: "vh"}},
		{url: "amqps://u:p@h/vh", want: endpoint{host: "h", port: 5671, user: "u", password: "p", vhost: "vh"}, secure: true},
		{url: "amqp://u:p@h?ssl=true", want: endpoint{host: "h", port: 5671, user: "u", password: "p", vhost: "/"}, secure: true},
		{url: "amqp://u:p@h", options: map[string]any{"ssl": map[string]any{"cert_reqs": "CERT_REQUIRED"}},
			want: endpoint{host: "h", port: 5671, user: "u", password: "p", vhost: "/"}, secure: true},
		{url: "amqp://u:p@a/v;amqp://u:p@b:7/v", want: endpoint{host: "b", port: 7, user: "u", password: "p", vhost: "v"}, nodes: 2},
		{url: "amqp://u:p@a/v;b", want: endpoint{host: "b", port: 5672, user: "u", password: "p", vhost: "v"}, nodes: 2},
	}
	for _, tt := range tests {
		o, err := parse(tt.url, tt.options)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		got := o.endpoints[len(o.endpoints)-1]
		secure := got.tls != nil
		if secure && (got.tls.InsecureSkipVerify || got.tls.ServerName != tt.want.host) {
			t.Errorf("%s: the certificate is not verified for %s", tt.url, tt.want.host)
		}
		got.tls = nil
		if got != tt.want || secure != tt.secure || len(o.endpoints) != max(tt.nodes, 1) {
			t.Errorf("%s: %+v, TLS %v, %d nodes; expected %+v, TLS %v", tt.url, got, secure, len(o.endpoints), tt.want, tt.secure)
		}
		if strings.Contains(o.url, "p@w") || strings.Contains(o.url, "p%40w") {
			t.Errorf("%s: the password shows in %s", tt.url, o.url)
		}
	}
	o, err := parse("amqp://h?heartbeat=5&connect_timeout=1.5", map[string]any{"write_timeout": 3, "failover_strategy": "shuffle",
		"native_delayed_delivery_queue_type": "classic", "login_method": "EXTERNAL", "management_url": "http://m", "confirm_publish": true})
	if err != nil || o.heartbeat != 5*time.Second || o.connectTimeout != 1500*time.Millisecond || o.writeTimeout != 3*time.Second ||
		!o.shuffle || o.delayQueueType != "classic" || o.loginMethod != "EXTERNAL" || o.managementURL != "http://m" {
		t.Errorf("options are %+v, %v", o, err)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url     string
		options map[string]any
		want    string
	}{
		{"amqp://h?no_such=1", nil, "no_such"},
		{"amqp://h?heartbeat=soon", nil, "heartbeat"},
		{"amqp://h?ssl_ca_certs=/x", nil, "use amqps://"},
		{"amqps://h?ssl_cert_reqs=maybe", nil, "ssl_cert_reqs"},
		{"amqps://h?ssl_ca_certs=/no/such/file", nil, "ssl_ca_certs"},
		{"amqp://h", map[string]any{"no_such": 1}, "no_such"},
		{"amqp://h", map[string]any{"failover_strategy": "random"}, "round-robin, shuffle"},
		{"amqp://h", map[string]any{"native_delayed_delivery_queue_type": "stream"}, "quorum, classic"},
		{"amqp://h", map[string]any{"ssl": 5}, "ssl"},
	} {
		if _, err := parse(tt.url, tt.options); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %v: %v; expected something about %q", tt.url, tt.options, err, tt.want)
		}
	}
}

// TestTLS publishes and consumes through TLS: a real broker behind an end of TLS, whose certificate must be trusted.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := testservice.RabbitMQ(t)
	web := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate, which is for 127.0.0.1
	defer web.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	address := endOfTLS(t, web, s.Addr)
	base := "amqps://guest:guest@" + address + "/" + url.PathEscape(s.Vhost)
	within := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	if tr, err := open(within(), base, transport.Options{}); err == nil {
		_ = tr.Close(within())
		t.Error("a certificate of nobody we know was accepted")
	} else if !strings.Contains(err.Error(), "certificate") {
		t.Errorf("refused with %v; expected a word about the certificate", err)
	}
	for _, query := range []string{"?ssl_ca_certs=" + ca, "?ssl_cert_reqs=none"} {
		tr := connect(t, base+query)
		q := transport.Queue{Name: "q"}
		c, err := tr.Consume(within(), transport.ConsumeOptions{Queues: []transport.Queue{q}})
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		m := transport.Publication{Message: &protocol.Message{Headers: protocol.Headers{Task: "t", ID: "one"}, Body: []byte(`[[],{},null]`)}, RoutingKey: "q"}
		if err := tr.Publish(within(), []transport.Publication{m}); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		ds, err := c.Receive(within(), 1)
		if err != nil || ds[0].Message.Headers.ID != "one" {
			t.Fatalf("%s: received %v, %v", query, ds, err)
		}
		if _, err := c.Settle(within(), []transport.Settlement{{Delivery: &ds[0]}}); err != nil {
			t.Error(err)
		}
		if err := c.Close(within()); err != nil {
			t.Error(err)
		}
		if err := tr.Close(within()); err != nil {
			t.Error(err)
		}
	}
}

// endOfTLS listens for TLS with a server's certificate and passes what comes on in plain.
func endOfTLS(t *testing.T, web *httptest.Server, to string) (address string) {
	t.Helper()
	config := &tls.Config{Certificates: web.TLS.Certificates}
	return serve(t, func(conn net.Conn) { passOn(tls.Server(conn, config), to) })
}

func passOn(from net.Conn, to string) {
	defer func() { _ = from.Close() }()
	broker, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = broker.Close() }()
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(from, broker)
		_ = from.Close()
	}()
	_, _ = io.Copy(broker, from)
	_ = broker.Close()
	<-back
}
